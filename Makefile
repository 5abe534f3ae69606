# Everything runs in .venv, from requirement files with hashes.  Needs Python >= 3.11 with venv; no root.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/installed
READY := $(VENV)/ready

.PHONY: help setup check native wheels format test coverage test-fast test-servers test-cluster test-dragonfly simulate-dragonfly test-nfs bench bench-image demo lock budget dependencies image docs changelog release clean

help:
	@echo "make demo     the main job on this machine alone"
	@echo "make test     all tests that need no more than Python packages"
	@echo "make test-fast   those of them that take half a minute"
	@echo "make coverage   make test, and how much of lading ran, which has a floor"
	@echo "make test-servers   the tests against real servers, which it installs (as root on Debian)"
	@echo "make test-cluster   the tests in a cluster of Kubernetes, which it builds and starts (as root on Debian, with Go)"
	@echo "make test-dragonfly   the tests with ten nodes of Dragonfly, which it builds and starts (as root on Debian, with cargo and Go)"
	@echo "make simulate-dragonfly NODES=1000   what so many nodes ask of the origin, simulated on Dragonfly's real scheduler"
	@echo "make test-nfs   the store on NFS, in a Linux that it boots as a program (Debian; neither root nor KVM)"
	@echo "make check    format, lint, types, import contracts, links, changes/, workflows"
	@echo "make docs     the documentation as a site, in build/site; no link in it is dead"
	@echo "make budget   import time of the default install"
	@echo "make dependencies   what lading needs at run time: why, how large, under which licence"
	@echo "make image    the container image, with podman, buildah or docker (tools/image/build.sh)"
	@echo "make bench    race lading against its peers (needs nginx)"
	@echo "make bench-image   the image's size and start, beside the reference's"
	@echo "make native   build lading-native, TLS by rustls, and install it here (needs cargo)"
	@echo "make wheels   its wheels for x86-64 and arm64, glibc and musl"
	@echo "make format   rewrite to the project's format"
	@echo "make lock     resolve the requirement files anew"
	@echo "make changelog VERSION=1.2.3   write the version, and collect changes/ into CHANGELOG.md"
	@echo "make release [VERSION=1.2.3]   build everything that is published, install it and try it (RELEASE.md)"

setup: $(READY)

# lading with what a delivery needs, then the tools for its development.  The locks are whole: pip looks for no dependency, since
# of two requirements for one package, with and without an extra, it would find only one pinned.
$(INSTALLED): requirements/runtime.txt requirements/build.txt pyproject.toml
	$(PYTHON) -c 'import sys; sys.exit("lading needs Python 3.11 or newer") if sys.version_info < (3, 11) else None'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check --require-hashes --no-deps -r requirements/runtime.txt -r requirements/build.txt
	$(BIN)/pip install --quiet --disable-pip-version-check --no-build-isolation --no-deps -e .
	touch $(INSTALLED)

$(READY): $(INSTALLED) requirements/dev.txt
	$(BIN)/pip install --quiet --disable-pip-version-check --require-hashes --no-deps -r requirements/dev.txt
	touch $(READY)

check: $(READY)
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-cache
	$(BIN)/python tools/links.py
	@said=$$($(BIN)/towncrier build --draft --version next 2>&1) || { echo "$$said"; exit 1; }
	$(BIN)/zizmor --offline --quiet --strict-collection .github
	@if command -v cargo >/dev/null; then \
	  $(BIN)/python tools/native/crates.py lock && cd native && cargo fmt --check && \
	  cargo clippy --quiet --locked --release -- --deny warnings; \
	else echo "not checked: native/, which needs cargo"; fi

# Without it OpenSSL does all TLS, and what would test it is skipped, which pytest's summary says.
native: $(READY)
	@if command -v cargo >/dev/null; then \
	  $(BIN)/pip install --quiet --disable-pip-version-check --require-hashes --no-deps -r requirements/native.txt && \
	  rm -rf build/wheels && PYTHON=$(BIN)/python tools/native/build.sh && \
	  $(BIN)/pip install --quiet --disable-pip-version-check --no-index --no-deps --force-reinstall build/wheels/*.whl; \
	else echo "not built: lading-native, which needs cargo"; fi

# Rust's standard library for each target must be there: rustup target add.  zig is called from other folders: its Python has
# a whole path.
TARGETS ?= $(foreach libc,gnu musl,x86_64-unknown-linux-$(libc) aarch64-unknown-linux-$(libc))
wheels:
	$(PYTHON) -m venv build/native
	build/native/bin/pip install --quiet --disable-pip-version-check --require-hashes --no-deps -r requirements/native.txt -r requirements/cross.txt
	PYTHON=$(CURDIR)/build/native/bin/python tools/native/build.sh $(TARGETS)

format: $(READY)
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

# The tests of one file share servers: they stay together.  A run whose order matters is repeated by make test ORDER=…
ORDER := $(shell date +%s)
test: $(READY)
	$(BIN)/pytest -n auto --dist loadfile --order=$(ORDER)

# As make test, with the lines and branches of lading that ran: at least fail_under of pyproject.toml.
coverage: $(READY)
	rm -rf build/coverage
	$(BIN)/coverage run -m pytest -n auto --dist loadfile --order=$(ORDER)
	$(BIN)/coverage combine --quiet
	$(BIN)/coverage report

# Values, decisions, and the story with a source in memory: no servers, no processes.
FAST := $(addprefix tests/,model text system settings/test_settings.py test_deliver.py test_errors.py test_retry.py)
test-fast: $(READY)
	$(BIN)/pytest -n auto --dist loadfile $(FAST)

test-servers: $(READY)
	tools/servers.sh
	$(BIN)/pytest tests/real

# In namespaces of its own: nothing of the machine's network is used or changed.
test-cluster: $(READY)
	tools/servers.sh
	tools/cluster.sh
	$(BIN)/pytest tests/cluster

# In namespaces of its own, too.
test-dragonfly: $(READY)
	tools/dragonfly.sh
	$(BIN)/pytest -s tests/dragonfly

# As root on Debian, with Go.  SIMULATION passes options on: --files 8, --seeds 0, --within-s 60, --half-way seed-dies, ...
NODES ?= 1000
simulate-dragonfly: $(READY)
	tools/dragonfly.sh scheduler
	cd tests && ../$(BIN)/python -m dragonfly.simulate --nodes $(NODES) $(SIMULATION)

# In a machine of its own, whose kernel is a program: nothing of this machine is used or changed.
test-nfs: $(READY)
	tools/nfs.sh
	tests/nfs/boot.sh $(BIN)/pytest tests/nfs
	for mount in 4.2/a/xfs 3/a/xfs; do \
	  tests/nfs/boot.sh $(BIN)/pytest tests/store --basetemp=/nfs/$$mount/pytest || exit 1; \
	done

docs: build/docs/ready
	rm -rf build/site
	build/docs/bin/python tools/docs.py build/site
	build/docs/bin/python tools/links.py build/site

build/docs/ready: requirements/docs.txt requirements/runtime.txt
	$(PYTHON) -m venv --clear build/docs
	build/docs/bin/pip install --quiet --disable-pip-version-check --require-hashes --no-deps -r requirements/docs.txt -r requirements/runtime.txt
	touch $@

budget: $(READY)
	$(BIN)/python tools/budget.py

dependencies: $(READY)
	$(BIN)/python tools/dependencies.py

# Needs nginx, openssl, curl and zstd, and root, podman and runc to race what is in the image.
# SCALE=0.01 proves in a minute that it works; RACE and COSTS pass options on.  The whole race, on a quiet machine with 16 GiB
# of memory: make bench RACE="--rounds 3 --sets llm,huge,many,tiny" takes some 15 minutes, and 10 more for the costs.
SCALE ?= 1
bench: $(READY) .bench/ready
	image=$$(tools/image/build.sh) && cd benchmarks && \
	  ../$(BIN)/python race.py --image "$$image" --scale $(SCALE) $(RACE) && \
	  ../$(BIN)/python costs.py --image "$$image" --scale $(SCALE) $(COSTS)

# Needs podman and runc, besides what "make image" needs.
bench-image: $(READY) .bench/ready
	image=$$(tools/image/build.sh) && cd benchmarks && ../$(BIN)/python image.py "$$image" $(BENCH_IMAGE)

.bench/ready: requirements/peers.txt requirements/kserve.txt
	for peer in peers kserve; do \
	  rm -rf .bench/$$peer && \
	  $(PYTHON) -m venv .bench/$$peer && \
	  .bench/$$peer/bin/pip install --quiet --disable-pip-version-check --require-hashes --no-deps -r requirements/$$peer.txt || exit 1; \
	done
	touch .bench/ready

image:
	tools/image/build.sh

changelog: $(READY)
	$(BIN)/python tools/release.py prepare $(VERSION)

release: $(READY)
	$(BIN)/python tools/release.py build $(VERSION)

demo: $(INSTALLED)
	$(BIN)/python tools/demo.py

# In an environment of its own: the tests' has what the locks name, and nothing else.
LOCK := build/uv/bin/uv pip compile --quiet --upgrade --universal --python-version 3.11 --generate-hashes \
  --no-emit-index-url --no-annotate --custom-compile-command "make lock"
lock:
	$(PYTHON) -m venv --clear build/uv
	build/uv/bin/pip install --quiet --disable-pip-version-check uv
	$(LOCK) pyproject.toml -o requirements/runtime.txt
	for each in dev docs build native cross peers kserve mlflow kserve-models mlserver model-signing formats; do \
	  $(LOCK) requirements/$$each.in -o requirements/$$each.txt || exit 1; \
	done

clean:
	rm -rf $(VENV) .servers build
