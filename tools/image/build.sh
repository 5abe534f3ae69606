#!/usr/bin/env bash
# Builds the image, and writes its bill of materials to build/lading.cdx.json.  Options are variables:
#
#   BASE      Debian 13, best by digest: docker.io/library/debian@sha256:….  "local" is one that debootstrap makes
#             here (as root), once; so is the base where none is given and the default cannot be had.
#   IMAGE     the name to give (localhost/lading:VERSION)
#   ENGINE    podman, buildah or docker: the first that works, if none is named
#   PLATFORM  linux/amd64, linux/arm64; the machine's own, if none is named.  Another needs qemu-user-static.
#   ARCHIVE   a file to write the image to, as an OCI archive, which podman, skopeo and docker load
#   CA        a file of certificates to trust while building, for a proxy that looks into TLS; Debian's bundle of
#             this machine, if it has one.  None of it is in the image.
#   FRESH     not empty: use no layer of an earlier build
set -euo pipefail
shopt -s inherit_errexit
cd "$(dirname "$0")/../.."

works() { command -v "$1" >/dev/null && "$1" info >/dev/null 2>&1; }

for engine in ${ENGINE:-podman buildah docker}; do
  works "$engine" && break
  engine=
done
[ -n "${engine:-}" ] || { echo "no container engine works here: ${ENGINE:-podman, buildah, docker}" >&2; exit 1; }

debian=$(sed -n 's/^ARG BASE=//p' Containerfile)
local_base() { # prints the name of a Debian that debootstrap made; its file system is kept in .servers
  local release=trixie${PLATFORM:+-${PLATFORM#linux/}} name file folder container
  name=lading-base:$release
  file=.servers/debian-$release.tar
  [ "$engine" = docker ] || name=localhost/$name
  if "$engine" images --quiet "$name" 2>/dev/null | grep -q .; then
    echo "$name"
    return
  fi
  if [ ! -f "$file" ]; then
    mkdir -p .servers
    folder=$(mktemp -d)
    PATH="$PATH:/usr/sbin" debootstrap ${PLATFORM:+"--arch=${PLATFORM#linux/}"} \
      --variant=minbase --include=binutils,ca-certificates,python3,python3-pip \
      trixie "$folder" >"$folder.log" || { tail "$folder.log" >&2; exit 1; }
    rm -rf "$folder"/var/cache/apt/archives/*.deb
    tar -C "$folder" --numeric-owner -cf "$file.part" .
    mv "$file.part" "$file"
    rm -rf "$folder" "$folder.log"
  fi
  if [ "$engine" = buildah ]; then
    container=$(buildah from ${PLATFORM:+"--platform=$PLATFORM"} scratch)
    buildah add --quiet "$container" "$file" / >/dev/null
    buildah commit --quiet --rm "$container" "$name" >/dev/null
  elif [ "$engine" = docker ]; then
    docker import ${PLATFORM:+"--platform=$PLATFORM"} "$file" "$name" >/dev/null
  else
    podman import --quiet ${PLATFORM:+"--arch=${PLATFORM#linux/}"} "$file" "$name" >/dev/null
  fi
  echo "$name"
}

base=${BASE:-}
if [ -z "$base" ]; then
  if timeout 120 "$engine" pull --quiet "$debian" >/dev/null 2>&1; then
    base=$debian
  else
    echo "$debian cannot be had: bootstrapping Debian here" >&2
    base=local
  fi
fi
[ "$base" != local ] || base=$(local_base)
case "$base" in
*@sha256:* | *lading-base:*) ;;
*) echo "$base may change: a digest (NAME@sha256:…) gives the same layers again" >&2 ;;
esac

version=$(sed -n 's/^__version__ = "\(.*\)"$/\1/p' src/lading/__init__.py)
revision=$(git rev-parse HEAD 2>/dev/null || echo unknown)
image=${IMAGE:-localhost/lading:$version}
options=(-f Containerfile --build-arg "BASE=$base")
[ -z "${PLATFORM:-}" ] || options+=(--platform "$PLATFORM")
ca=${CA:-/etc/ssl/certs/ca-certificates.crt}
if [ -n "${CA:-}" ] || [ -f "$ca" ]; then
  options+=(--secret "id=ca,src=$ca")
fi
if [ "$engine" = docker ]; then
  export DOCKER_BUILDKIT=1
else
  # Without a daemon: the caller's network, and limits that a caller who may not raise them has too.
  options+=(--layers --timestamp 0 --network host --ulimit nofile=4096 --ulimit nproc=4096)
  if PATH="$PATH:/usr/sbin" command -v runc >/dev/null; then
    # crun refuses hybrid cgroups.
    options+=(--runtime runc)
  fi
fi
[ -z "${FRESH:-}" ] || options+=(--no-cache)

"$engine" build "${options[@]}" --quiet --tag "$image" \
  --build-arg "VERSION=$version" --build-arg "REVISION=$revision" . >/dev/null

case "${ARCHIVE:+$engine}" in
podman) podman save --quiet --format oci-archive --output "$ARCHIVE" "$image" ;;
buildah) buildah push --quiet "$image" "oci-archive:$ARCHIVE:$image" ;;
docker) docker save --output "$ARCHIVE" "$image" ;;
esac

bill=usr/share/sbom/lading.cdx.json
mkdir -p build
if [ "$engine" = buildah ]; then
  container=$(buildah from --pull-never "$image")
  cp "$(buildah mount "$container")/$bill" build/
  buildah rm "$container" >/dev/null
else
  container=$("$engine" create "$image")
  "$engine" cp "$container:/$bill" build/
  "$engine" rm "$container" >/dev/null
fi
echo "$image"
