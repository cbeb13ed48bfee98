#!/bin/sh
# Make the virtual environment $1 with the interpreter $2, or bring it up to date.
set -eu
venv=$1 python=$2

# Of two that set up at once, one waits for the other.
exec 9<pyproject.toml
flock 9

"$venv/bin/python" -m pip --version >/dev/null 2>&1 || "$python" -m venv "$venv"
# What pip had half written when it was cut off, it takes for installed: the file INSTALLER comes last.
find "$venv/lib" -name '*.dist-info' ! -exec test -e '{}/INSTALLER' ';' -prune -exec rm -r '{}' +
"$venv/bin/python" -m pip install --quiet --disable-pip-version-check --editable '.[dev]'
