#!/usr/bin/env bash
# Installs what tests/cluster needs besides tools/servers.sh, as root on Debian: packages, and Kubernetes, built from Go
# modules into .servers/cluster (20 minutes of a CPU with empty caches).  What is there already is left alone.
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
debian golang-go go
[ -x /usr/lib/cni/bridge ] || missing+=(containernetworking-plugins)
if [ ${#missing[@]} -gt 0 ]; then
  apt-get update -qq
  apt-get install -y -qq --no-install-recommends "${missing[@]}" >/dev/null
fi

folder=$PWD/.servers/cluster
version=$(sed -n 's/^VERSION = "\(.*\)"$/\1/p' tests/cluster/single_node.py)
mkdir -p "$folder"
build() { # package, name
  [ -x "$folder/$2" ] && return
  # Without symbols for debuggers, and with less collecting of garbage: a third less of the compiler's time.
  (cd tests/cluster/kubernetes && GOGC=400 go build -trimpath -gcflags=all=-dwarf=false \
    -ldflags "-s -w -X k8s.io/component-base/version.gitVersion=v$version" -o "$folder/$2.part" "$1")
  mv "$folder/$2.part" "$folder/$2"
}
CGO_ENABLED=0 build ./pause pause
build . "kubernetes-$version"
