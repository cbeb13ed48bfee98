#!/bin/sh
# Fail when src/orlop/wire is not what proto/ generates.
set -eu
cd "$(dirname "$0")/.."
fresh=$(mktemp -d)
trap 'rm -rf "$fresh"' EXIT
scripts/generate-wire.sh "$fresh"
if ! diff -r --exclude=__init__.py --exclude=__pycache__ "$fresh/orlop/wire" src/orlop/wire; then
    echo "src/orlop/wire is stale: run 'make wire'" >&2
    exit 1
fi
