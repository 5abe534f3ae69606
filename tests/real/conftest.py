"""Tests against real servers that are no Python packages: ``make test-servers`` installs those, then runs these.

A server that is missing is an error here, never a skip.
"""

import os
import shutil
from pathlib import Path

import pytest

from fakes.faulty_http import FaultyServer
from fakes.image import build
from fakes.own_network import OwnNetwork

SERVERS = Path(__file__).parents[2] / ".servers"


@pytest.fixture(scope="session")
def program():
    """Where a server's program is: below ``.servers`` or on the path."""

    def find(name: str) -> str:
        path = os.pathsep.join(
            [str(SERVERS / "bin"), str(SERVERS / "node_modules/.bin"), os.environ["PATH"], "/usr/sbin"]
        )
        found = shutil.which(name, path=path)
        assert found, f"{name} is not installed: run make test-servers"
        return found

    return find


@pytest.fixture(scope="session")
def sources(tmp_path_factory):
    """Those that the image was built from."""
    return tmp_path_factory.mktemp("image") / "sources"


@pytest.fixture(scope="session")
def image(program, sources):
    """The image's name; it takes minutes, and is built once."""
    for name in ("podman", "runc", "debootstrap", "ip", "unshare"):
        program(name)
    return build(sources, "localhost/lading:tested")


@pytest.fixture(scope="module")
def network():
    """Where pods run: what is not started there does not exist for them."""
    with OwnNetwork() as network:
        yield network


@pytest.fixture
def server_of_pods(network):
    """A server that only pods reach."""
    with network.within():
        server = FaultyServer()
    with server:
        yield server
