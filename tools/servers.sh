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
debian squid squid
debian zip zip
debian unzip unzip
debian zstd pzstd
debian xz-utils xz
debian bzip2 bzip2
debian curl curl
debian git git
debian git-lfs git-lfs
debian fcgiwrap fcgiwrap
debian docker-registry docker-registry
debian skopeo skopeo
debian podman podman
debian runc runc
debian debootstrap debootstrap
debian iproute2 ip
debian nodejs node
debian npm npm
debian maven mvn
debian openjdk-17-jdk-headless javac
debian krb5-kdc krb5kdc
debian krb5-admin-server kadmin.local
debian libkrb5-dev krb5-config
debian gcc gcc
debian python3-dev python3-config
debian e2fsprogs mkfs.ext4
debian xfsprogs mkfs.xfs
debian btrfs-progs mkfs.btrfs
debian chromium chromium
if [ ${#missing[@]} -gt 0 ]; then
  apt-get update -qq
  apt-get install -y -qq --no-install-recommends "${missing[@]}" >/dev/null
fi
tools/go.sh

# A venv of its own: it pins other versions of what .venv has too, and weighs a gigabyte.
if ! cmp -s requirements/mlflow.txt .servers/mlflow/installed; then
  rm -rf .servers/mlflow
  python3 -m venv .servers/mlflow
  .servers/mlflow/bin/pip install --quiet --disable-pip-version-check --require-hashes --no-deps -r requirements/mlflow.txt
  cp requirements/mlflow.txt .servers/mlflow/installed
fi

# A model server of the Open Inference Protocol, and Triton's client.
if ! cmp -s requirements/mlserver.txt .servers/mlserver/installed; then
  rm -rf .servers/mlserver
  python3 -m venv .servers/mlserver
  .servers/mlserver/bin/pip install --quiet --disable-pip-version-check --require-hashes --no-deps -r requirements/mlserver.txt
  cp requirements/mlserver.txt .servers/mlserver/installed
fi

# The reference program of OpenSSF Model Signing.
if ! cmp -s requirements/model-signing.txt .servers/model-signing/installed; then
  rm -rf .servers/model-signing
  python3 -m venv .servers/model-signing
  .servers/model-signing/bin/pip install --quiet --disable-pip-version-check --require-hashes --no-deps -r requirements/model-signing.txt
  cp requirements/model-signing.txt .servers/model-signing/installed
fi

# Blob Storage; the version is in tests/real/test_azurite.py too.
if [ ! -x .servers/node_modules/.bin/azurite-blob ]; then
  npm install --prefix .servers --no-audit --no-fund --loglevel=error azurite@3.37.0
fi

# Cloud Storage, built from source, which takes a few minutes.
if [ ! -x .servers/bin/fake-gcs-server ]; then
  GOBIN="$PWD/.servers/bin" go install github.com/fsouza/fake-gcs-server@v1.56.1
fi

# What the router of Kubeflow's catalog makes of a path.
if [ ! -x .servers/bin/catalog-routes ]; then
  GOBIN="$PWD/.servers/bin" go install -C tests/real/catalog_routes .
fi

# What cosign and notation sign, by their own libraries: a minute and a half of a CPU.
if [ ! -x .servers/bin/image-signers ]; then
  GOBIN="$PWD/.servers/bin" go install -C tests/real/image_signers .
fi

# A small HDFS cluster: 79 MB; what maven needs to fetch it, another 200, goes again.
if ! cmp -s tests/real/hadoop/pom.xml .servers/hadoop/installed; then
  rm -rf .servers/hadoop
  mvn --quiet --batch-mode --strict-checksums --file tests/real/hadoop/pom.xml \
    -Dmaven.repo.local="$PWD/.servers/hadoop/maven" org.apache.maven.plugins:maven-dependency-plugin:3.8.1:copy-dependencies \
    -DincludeScope=runtime -DoutputDirectory="$PWD/.servers/hadoop/lib"
  rm -rf .servers/hadoop/maven tests/real/hadoop/target
  cp tests/real/hadoop/pom.xml .servers/hadoop/installed
fi

# KServe's own storage initializer.
make --silent .bench/ready

# What renders the manifests, built from source, which takes a few minutes.
if [ ! -x .servers/bin/kustomize ]; then
  GOBIN="$PWD/.servers/bin" go install sigs.k8s.io/kustomize/kustomize/v5@v5.6.0
fi
if [ ! -x .servers/bin/helm ]; then
  GOBIN="$PWD/.servers/bin" go install helm.sh/helm/v3/cmd/helm@v3.17.3
fi

# KServe's own models of its manifests: half a gigabyte, of which they need little.
if ! cmp -s requirements/kserve-models.txt .servers/kserve/installed; then
  rm -rf .servers/kserve
  python3 -m venv .servers/kserve
  .servers/kserve/bin/pip install --quiet --disable-pip-version-check --require-hashes --no-deps -r requirements/kserve-models.txt
  cp requirements/kserve-models.txt .servers/kserve/installed
fi

# The libraries of the formats of models.
if ! cmp -s requirements/formats.txt .servers/formats/installed; then
  rm -rf .servers/formats
  python3 -m venv .servers/formats
  .servers/formats/bin/pip install --quiet --disable-pip-version-check --require-hashes --no-deps -r requirements/formats.txt
  cp requirements/formats.txt .servers/formats/installed
fi

# The extra "kerberos", apart from .venv so that a test can do without it.
if [ ! -d .servers/python/gssapi ]; then
  .venv/bin/pip install --quiet --disable-pip-version-check --target .servers/python gssapi==1.12.0 decorator==5.3.1
fi
