#!/usr/bin/env bash
# Installs what tests/dragonfly needs, as root on Debian: Dragonfly's scheduler from its Go module, and its dfdaemon from its
# crate, into .servers/dragonfly.  What is there already is left alone, and needs no network.  With empty folders it takes
# half an hour of a CPU, most of that for RocksDB; an interrupted run keeps the crates that it has compiled.  With the word
# "scheduler", it installs no more than that, and Go: what the simulation needs.
set -euo pipefail
cd "$(dirname "$0")/.."

version() { # name of the constant
  sed -n "s/^$1 = \"\(.*\)\"$/\1/p" tests/dragonfly/swarm.py
}
scheduler=$(version SCHEDULER_VERSION)
dfdaemon=$(version DFDAEMON_VERSION)
folder=$PWD/.servers/dragonfly
mkdir -p "$folder"

tools/go.sh
if [ ! -x "$folder/scheduler-$scheduler" ]; then
  (cd tests/dragonfly/scheduler && CGO_ENABLED=0 GOGC=400 go build -trimpath -gcflags=all=-dwarf=false \
    -ldflags "-s -w" -o "$folder/scheduler.part" d7y.io/dragonfly/v2/cmd/scheduler)
  # Only a whole one has its name.
  mv "$folder/scheduler.part" "$folder/scheduler-$scheduler"
fi
[ "${1:-}" != scheduler ] || exit 0

if [ ! -x "$folder/dfdaemon-$dfdaemon" ]; then
  missing=()
  # Of RocksDB and aws-lc, which it contains.
  for program in cmake clang protoc; do
    command -v "$program" >/dev/null || missing+=("$program")
  done
  if [ ${#missing[@]} -gt 0 ]; then
    apt-get update -qq
    apt-get install -y -qq --no-install-recommends cmake clang libclang-dev g++ protobuf-compiler libprotobuf-dev >/dev/null
  fi
  # It is tested, and not measured.
  CARGO_PROFILE_RELEASE_OPT_LEVEL=0 CARGO_PROFILE_RELEASE_DEBUG=false CARGO_TARGET_DIR=$folder/build \
    cargo install --quiet --locked --version "$dfdaemon" --bin dfdaemon --root "$folder/build/root" dragonfly-client
  mv "$folder/build/root/bin/dfdaemon" "$folder/dfdaemon-$dfdaemon"
fi
rm -rf "$folder/build"
