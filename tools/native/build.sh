#!/usr/bin/env bash
# Builds wheels of lading-native into build/wheels.  Needs cargo, Rust 1.83 or newer, and maturin beside $PYTHON.
#
#   build.sh             for this machine and its C library
#   build.sh TARGET...   for others, such as aarch64-unknown-linux-gnu or x86_64-unknown-linux-musl: with zig as their
#                        compiler and linker (requirements/cross.txt), and Rust's standard library for them
set -euo pipefail
cd "$(dirname "$0")/../.."
python=${PYTHON:-python3}
"$python" tools/native/crates.py lock
# The same inputs in the same folder give the same bytes (cargo mixes the folder's name into those of symbols).
export SOURCE_DATE_EPOCH=${SOURCE_DATE_EPOCH:-0}
export RUSTFLAGS="--remap-path-prefix=${CARGO_HOME:-$HOME/.cargo}=cargo ${RUSTFLAGS:-}"
# Maturin looks for zig beside the first Python.
PATH="$(dirname "$(command -v "$python")"):$PATH"
build() { "$python" -m maturin build --quiet --release --locked --manifest-path native/Cargo.toml --out build/wheels "$@"; }

[ $# -gt 0 ] || build --compatibility linux
for target in "$@"; do
  case "$target" in
  *-gnu) build --zig --target "$target" --compatibility manylinux_2_17 ;;
  # Their standard library is linked dynamically only if it is said.
  *-musl) RUSTFLAGS="$RUSTFLAGS -C target-feature=-crt-static" build --zig --target "$target" --compatibility musllinux_1_2 ;;
  *) echo "not a Linux that Python wheels are made for: $target" >&2; exit 2 ;;
  esac
done
