#!/usr/bin/env bash
# Renews the Go code that is generated from .proto files. Run setup.sh first: its protoc is used.
set -euo pipefail

peers=$(cd "$(dirname "$0")" && pwd)
repository=$(cd "$peers/../../.." && pwd)
out=${1:-$repository/target/interop}
out=$(cd "$out" && pwd)

# The versions of the plugins are those in go.mod.
(cd "$peers/go" && go build -o "$out/bin/" \
    google.golang.org/protobuf/cmd/protoc-gen-go google.golang.org/grpc/cmd/protoc-gen-go-grpc)

generate() { # generate <proto root> <file> <package>
    local options="module=interoppeer,M$2=interoppeer/internal/generated/$3"
    "$out/python-venv/bin/python" -m grpc_tools.protoc --proto_path="$1" \
        --plugin="protoc-gen-go=$out/bin/protoc-gen-go" --go_out="$peers/go" --go_opt="$options" \
        --plugin="protoc-gen-go-grpc=$out/bin/protoc-gen-go-grpc" --go-grpc_out="$peers/go" --go-grpc_opt="$options" \
        "$2"
}

generate "$peers/proto" interop.proto interoppb
generate "$repository/proto" test/echo.proto echopb
generate "$repository/crates/tunnel-bench/proto" bench.proto benchpb
gofmt -l "$peers/go"
