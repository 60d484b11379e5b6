#!/usr/bin/env bash
# Proves that the committed Go of the .proto files is what the pinned plugins write today.
# It compares files, not git's view of them, so it gives the same answer in a dirty tree. Run by `make check`,
# which puts buf and the plugins on PATH; it changes nothing in the tree.
set -euo pipefail
cd "$(dirname "$0")/../.."

# Generated code calls into the runtime of the same module, so the plugin and the runtime are one version.
version() { go list -m -modfile="$1" -f '{{.Version}}' google.golang.org/protobuf; }
ours=$(version go.mod)
plugin=$(version tools/protoc/go.mod)
if [ "$ours" != "$plugin" ]; then
	echo "go.mod has google.golang.org/protobuf $ours, tools/protoc/go.mod has $plugin: make them equal, then make generate" >&2
	exit 1
fi

tmp=$(mktemp -d)
trap 'rm -rf "$tmp"' EXIT
mkdir -p "$tmp/committed/proto" "$tmp/generated/proto"
(cd proto && find . -name '*.pb.go' -exec cp --parents -t "$tmp/committed/proto" {} +)
buf generate -o "$tmp/generated"

if ! (cd "$tmp" && diff -ru committed generated | head -n 60); then
	echo 'generated code is not up to date: run make generate' >&2
	exit 1
fi
