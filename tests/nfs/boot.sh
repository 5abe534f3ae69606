#!/usr/bin/env bash
# Boots a Linux that is a program (User Mode Linux), with an NFS server and two clients, and runs a command there:
#
#     boot.sh COMMAND [ARGUMENT…]
#
# It needs tools/nfs.sh, and neither root nor KVM.  It sees the files of this machine, but what it writes goes when it ends.
set -euo pipefail
cd "$(dirname "$0")/../.."

work=$(mktemp -d)
trap 'kill "${machine:-}" 2>/dev/null || true; rm -rf "$work"' EXIT
trap 'exit 1' INT TERM
# Sparse: what the server exports.
truncate -s 3G "$work/xfs" "$work/ext4"
truncate -s 64M "$work/small"
printf '%s\0' "$@" >"$work/arguments"
TMPDIR=$work .servers/nfs/usr/bin/linux.uml mem=2G root=/dev/root rootfstype=hostfs rootflags=/ ro \
  init="$PWD/tests/nfs/init.sh" REPOSITORY="$PWD" WORK="$work" ubd0="$work/xfs" ubd1="$work/ext4" ubd2="$work/small" \
  quiet con=null con0=null,fd:1 </dev/null &
machine=$!
wait "$machine"
exit "$(cat "$work/code" 2>/dev/null || echo 1)"
