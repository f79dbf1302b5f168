#!/usr/bin/env bash
# Builds both peers; what is made goes to target/interop, or where the argument says.
set -euo pipefail

peers=$(cd "$(dirname "$0")" && pwd)
repository=$(cd "$peers/../../.." && pwd)
out=${1:-$repository/target/interop}
mkdir -p "$out/bin" "$out/python-generated"
out=$(cd "$out" && pwd)
venv=$out/python-venv

(cd "$peers/go" && go build -o "$out/bin/peer-go" .)

# Installing takes longer than everything else, and is only needed when the list has changed.
if ! cmp -s "$peers/python/requirements.txt" "$venv/requirements.txt"; then
    rm -rf "$venv"
    python3 -m venv "$venv"
    "$venv/bin/pip" install --quiet --disable-pip-version-check --requirement "$peers/python/requirements.txt"
    cp "$peers/python/requirements.txt" "$venv/requirements.txt"
fi

# The directory of echo.proto is its root: a Python package named `test` would hide behind the standard library's.
"$venv/bin/python" -m grpc_tools.protoc \
    --proto_path="$peers/proto" --proto_path="$repository/proto/test" \
    --python_out="$out/python-generated" --grpc_python_out="$out/python-generated" \
    interop.proto echo.proto

cat >"$out/bin/peer-python" <<END
#!/bin/sh
PYTHONDONTWRITEBYTECODE=1 PYTHONPATH='$peers/python:$out/python-generated' exec '$venv/bin/python' -m interop_peer "\$@"
END
chmod +x "$out/bin/peer-python"
