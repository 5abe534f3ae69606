#!/usr/bin/env bash
# Installs Go, as root on Debian.  One that is there is left alone if it fetches by itself what a module asks for that is
# newer than it: each since 1.21 does.
set -euo pipefail

minor=$(go env GOVERSION 2>/dev/null | cut -d. -f2) || true # of go1.26.8
[ "${minor:-0}" -lt 21 ] || exit 0

. /etc/os-release
from=
if [ "$VERSION_CODENAME" = bookworm ]; then
  # Its own is 1.19.
  from=bookworm-backports
  echo "deb [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] http://deb.debian.org/debian $from main" \
    >/etc/apt/sources.list.d/$from.list
fi
apt-get update -qq
apt-get install -y -qq --no-install-recommends ${from:+--target-release "$from"} golang-go >/dev/null
