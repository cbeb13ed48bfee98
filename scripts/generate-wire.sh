#!/bin/sh
# Generate src/orlop/wire from proto/. With a folder as argument, generate there instead.
set -eu
cd "$(dirname "$0")/.."
out=${1:-src}
python=${PYTHON:-.venv/bin/python}
includes=$("$python" -c 'import google.rpc, os; print(os.path.dirname(os.path.dirname(os.path.dirname(google.rpc.__file__))))' 2>/dev/null ||
    "$python" -c 'import sysconfig; print(sysconfig.get_paths()["purelib"])')
find "$out/orlop/wire" -name '*_pb2.py*' -delete 2>/dev/null || true
# shellcheck disable=SC2046
"$python" -m grpc_tools.protoc -I proto -I "$includes" --python_out="$out" --pyi_out="$out" \
    $(find proto -name '*.proto' | sort)
