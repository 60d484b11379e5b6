#!/usr/bin/env bash
# build.sh makes sure that there is a Vault for development and tests, and prints where it is.
#
# README: run it by hand or as `make vault`. The path goes to standard output, everything else to standard error.
# It takes, in this order, what internal/devvault takes too:
#   1. the program that $PORTCULLIS_VAULT_BIN names,
#   2. `vault`, then `bao` (OpenBao), on PATH,
#   3. the build kept in the user's cache folder, made here from source the first time.
# The version is the one in go.mod beside this file. Vault is a separate program under its own licence: it is built
# from its own module, and nothing of it is linked into Portcullis. Delete the kept folder to have it built again.
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)

say() { printf '%s\n' "$*" >&2; }

if [ -n "${PORTCULLIS_VAULT_BIN:-}" ]; then
	command -v -- "$PORTCULLIS_VAULT_BIN" && exit 0
	say "PORTCULLIS_VAULT_BIN names $PORTCULLIS_VAULT_BIN, which is not a program"
	exit 1
fi
# type -P looks on PATH alone, as Go does: not at aliases and functions.
type -P vault && exit 0
type -P bao && exit 0

version=$(awk '$1 == "github.com/hashicorp/vault" { print substr($2, 2) }' "$here/go.mod")
[ -n "$version" ] || { say "$here/go.mod names no version of github.com/hashicorp/vault"; exit 1; }

# The same folder as Go's os.UserCacheDir.
case $(uname -s) in
Darwin) cache=$HOME/Library/Caches ;;
*) cache=${XDG_CACHE_HOME:-$HOME/.cache} ;;
esac
dir=$cache/portcullis/vault-$version
kept=$dir/vault

if [ -x "$kept" ] && "$kept" version >/dev/null 2>&1; then
	printf '%s\n' "$kept"
	exit 0
fi

type -P go >/dev/null || { say "Go is needed to build Vault: https://go.dev/dl"; exit 1; }

mkdir -p "$dir"
# What a killed build left. Builds of today are left alone, since another one may be running.
find "$dir" -mindepth 1 -maxdepth 1 -name 'building.*' -mtime +0 -exec rm -rf {} +

# The program appears under its name by a rename, complete or not at all.
tmp=$(mktemp -d "$dir/building.XXXXXX")
build=
finish() {
	if [ -n "$build" ]; then
		# An interrupt lets the go command remove its own work folder.
		kill -INT "$build" 2>/dev/null || true
		wait "$build" 2>/dev/null || true
	fi
	rm -rf "$tmp"
}
trap finish EXIT
trap 'exit 129' HUP
trap 'exit 130' INT
trap 'exit 143' TERM

say "building HashiCorp Vault $version from source, once; about five minutes on two cores; kept at $kept"

# GOFLAGS and GOWORK of the caller must not change what is built.
(cd "$here" && GOFLAGS='' GOWORK=off exec go build -mod=readonly -tags minimal -trimpath -buildvcs=false \
	-o "$tmp/vault" github.com/hashicorp/vault) >&2 &
build=$!

start=$SECONDS
next=20
while kill -0 "$build" 2>/dev/null; do
	sleep 1
	if [ $((SECONDS - start)) -ge $next ]; then
		say "still building Vault: $((SECONDS - start)) s so far"
		next=$((next + 20))
	fi
done
status=0
wait "$build" || status=$?
build=
if [ "$status" -ne 0 ]; then
	say "building Vault failed; the messages above say why"
	exit 1
fi

"$tmp/vault" version >/dev/null || { say "the Vault just built does not run"; exit 1; }
mv -f "$tmp/vault" "$kept"
say "built Vault $version in $((SECONDS - start)) s"
printf '%s\n' "$kept"
