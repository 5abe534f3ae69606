#!/bin/bash
# The first process of the machine that boot.sh boots: makes a server of NFS and its clients, runs the command, and turns it off.
#
#     /srv/xfs, /srv/ext4, /srv/small   what the server exports; small has 64 MiB, and ext4 has root_squash
#     /nfs/VERSION/CLIENT/…             the same as the clients a and b mount it, by NFS v4.2 and v3
#
# Of v4.2 a client is a namespace of the network: each has connections, locks and caches of its own.
set -eu

if [ "${1:-}" != inside ]; then
  mount -t proc proc /proc
  mount -t tmpfs tmpfs /mnt
  mkdir /mnt/{packages,upper,work,root}
  mount -t hostfs -o "$(realpath "$REPOSITORY/.servers/nfs")" packages /mnt/packages
  # The files of the packages, over those of this machine, which stay as they are; what is written goes to memory.
  LD_LIBRARY_PATH=$(echo /mnt/packages/usr/lib/*-linux-gnu) bash -c 'exec -a insmod /mnt/packages/bin/kmod "$0"' \
    /mnt/packages/usr/lib/uml/modules/*/kernel/fs/overlayfs/overlay.ko
  mount -t overlay -o "lowerdir=/mnt/packages:/,upperdir=/mnt/upper,workdir=/mnt/work" overlay /mnt/root
  chroot /mnt/root "$0" inside || true
  echo o >/proc/sysrq-trigger
  sleep 60
fi

export PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin HOME=/root
mount -t proc proc /proc
mount -t sysfs sys /sys
mount -t devtmpfs dev /dev
mkdir -p /dev/pts /dev/shm
mount -t devpts devpts /dev/pts
for place in /dev/shm /run /tmp /mnt /srv /var/lib/nfs; do mount -t tmpfs tmpfs "$place"; done
mount -t hostfs -o "$WORK" work /mnt
modprobe -a nfsd nfsv3 nfsv4 veth

hostname server
ip link set lo up
# rpc.statd looks up whom it watches.
echo 'hosts: files' >/etc/nsswitch.conf
echo '127.0.0.1 localhost server' >/etc/hosts
mkdir -p /srv/{xfs,ext4,small} /run/rpcbind /var/lib/nfs/{sm,sm.bak,v4recovery,nfsdcltrack,nfsdcld}
touch /var/lib/nfs/{etab,rmtab,state}
mkfs.xfs -q /dev/ubda
mkfs.ext4 -q /dev/ubdb
mkfs.ext4 -q /dev/ubdc
mount /dev/ubda /srv/xfs
mount /dev/ubdb /srv/ext4
mount /dev/ubdc /srv/small
chmod 0777 /srv/ext4
cat >/etc/exports <<EOF
# The root of v4, whose clients see no other path.
/srv *(ro,fsid=0,no_subtree_check)
/srv/xfs *(rw,no_root_squash,no_subtree_check)
/srv/small *(rw,no_root_squash,no_subtree_check)
/srv/ext4 *(rw,no_subtree_check)
EOF
rpcbind
rpc.statd --no-notify
exportfs -ra
rpc.nfsd --lease-time 10 --grace-time 10 8
rpc.mountd
echo Y >/proc/fs/nfsd/v4_end_grace || true

number=0
for client in a b; do
  number=$((number + 1))
  ip netns add "$client"
  ip link add name "to-$client" type veth peer name eth0 netns "$client"
  ip address add "10.0.$number.1/24" dev "to-$client"
  ip link set "to-$client" up
  ip -n "$client" address add "10.0.$number.2/24" dev eth0
  ip -n "$client" link set eth0 up
  for export in xfs ext4 small; do
    mkdir -p "/nfs/4.2/$client/$export" "/nfs/3/$client/$export"
    nsenter --net="/run/netns/$client" unshare --uts sh -ec 'hostname "$1"; shift; mount.nfs "$@"' - \
      "$client" "10.0.$number.1:/$export" "/nfs/4.2/$client/$export" -o vers=4.2
    # Only with caches of its own: its locks need programs beside it, which do not run in a namespace.
    mount.nfs "127.0.0.1:/srv/$export" "/nfs/3/$client/$export" -o vers=3,nosharecache
  done
done

cd "$REPOSITORY"
readarray -d '' arguments </mnt/arguments
code=0
"${arguments[@]}" || code=$?
echo "$code" >/mnt/code
