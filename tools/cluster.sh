#!/usr/bin/env bash
# Installs what tests/cluster needs besides tools/servers.sh, as root on Debian: packages, and Kubernetes, built from Go
# modules into .servers/cluster.  What is there already is left alone, and needs no network.  With empty caches that is
# 1 GB to fetch and some 20 minutes of a CPU; an interrupted run keeps in Go's caches what it has fetched and compiled.
set -euo pipefail
cd "$(dirname "$0")/.."

missing=()
debian() { # package, program
  PATH="$PATH:/usr/sbin" command -v "$2" >/dev/null || missing+=("$1")
}
debian podman podman
debian runc runc
debian debootstrap debootstrap
debian containerd containerd
debian iproute2 ip
debian iptables iptables
debian conntrack conntrack
debian e2fsprogs mkfs.ext4
[ -x /usr/lib/cni/bridge ] || missing+=(containernetworking-plugins)
if [ ${#missing[@]} -gt 0 ]; then
  apt-get update -qq
  apt-get install -y -qq --no-install-recommends "${missing[@]}" >/dev/null
fi

folder=$PWD/.servers/cluster
version=$(sed -n 's/^VERSION = "\(.*\)"$/\1/p' tests/cluster/single_node.py)
mkdir -p "$folder"
cd tests/cluster/kubernetes
fetch() { # package: the modules that it needs
  local attempt
  for attempt in 1 2 3; do
    go list -deps "$1" >/dev/null && return
    sleep $((attempt * 5))
  done
  echo "the modules of Kubernetes cannot be had; the next run fetches what is still missing" >&2
  return 1
}
build() { # package, name
  [ ! -x "$folder/$2" ] || return 0
  ../../../tools/go.sh
  fetch "$1"
  # With less collecting of garbage and without symbols for debuggers, k8s.io/api takes 59 s of a CPU and not 81.
  GOGC=400 go build -trimpath -gcflags=all=-dwarf=false \
    -ldflags "-s -w -X k8s.io/component-base/version.gitVersion=v$version" -o "$folder/$2.part" "$1"
  # Only a whole one has its name.
  mv "$folder/$2.part" "$folder/$2"
}
CGO_ENABLED=0 build ./pause pause
build . "kubernetes-$version"
