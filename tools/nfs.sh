#!/usr/bin/env bash
# Brings what tests/nfs needs from Debian's packages to .servers/nfs: Linux as a program (User Mode Linux, 40 MB), and the
# programs of NFS.  Nothing is installed on this machine, and it needs no root.  What is there already is left alone.
set -euo pipefail
cd "$(dirname "$0")/.."

mkdir -p .servers
folder=$PWD/.servers/nfs
[ ! -x "$folder/usr/bin/linux.uml" ] || exit 0
part=$(mktemp -d .servers/nfs.part.XXXX)
trap 'rm -rf "$part"' EXIT
mkdir -p "$part"/root/usr/{bin,sbin,lib}
for name in bin sbin lib; do ln -s usr/$name "$part/root/$name"; done
(cd "$part" && apt-get download -qq user-mode-linux nfs-kernel-server nfs-common rpcbind libtirpc3 libnfsidmap1 libwrap0 \
  libevent-core-2.1-7 libkeyutils1 keyutils iproute2 xfsprogs kmod libkmod2 libinih1 liburcu8 e2fsprogs)
for package in "$part"/*.deb; do
  # Into usr, also what is packed below /sbin.
  dpkg-deb --fsys-tarfile "$package" | tar -x --keep-directory-symlink -C "$part/root"
done
ln -s uml/modules "$part/root/usr/lib/modules"
LD_LIBRARY_PATH=$(echo "$part"/root/usr/lib/*-linux-gnu) bash -c 'exec -a depmod "$0" "$@"' \
  "$part/root/bin/kmod" -b "$part/root" "$(ls "$part/root/usr/lib/modules")"
rm -rf "$folder"
# Only a whole one has its name.
mv "$part/root" "$folder"
