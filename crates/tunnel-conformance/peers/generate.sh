#!/usr/bin/env bash
# Renews the Go code of the benchmark that is generated from its .proto file. Run
# `cargo xtask interop --setup python` first: the protoc of its Python environment is used.
set -euo pipefail

peers=$(cd "$(dirname "$0")" && pwd)
repository=$(cd "$peers/../../.." && pwd)
out=$repository/target/interop
options="module=interoppeer,Mbench.proto=interoppeer/internal/generated/benchpb"

# The versions of the plugins are those in go.mod.
(cd "$peers/go" && go build -o "$out/bin/" \
    google.golang.org/protobuf/cmd/protoc-gen-go google.golang.org/grpc/cmd/protoc-gen-go-grpc)
"$out/python-venv/bin/python" -m grpc_tools.protoc --proto_path="$repository/crates/tunnel-bench/proto" \
    --plugin="protoc-gen-go=$out/bin/protoc-gen-go" --go_out="$peers/go" --go_opt="$options" \
    --plugin="protoc-gen-go-grpc=$out/bin/protoc-gen-go-grpc" --go-grpc_out="$peers/go" --go-grpc_opt="$options" \
    bench.proto
gofmt -l "$peers/go"
