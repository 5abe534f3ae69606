"""Tests against real servers that are no Python packages: ``make test-servers`` installs those, then runs these.

A server that is missing is an error here, never a skip.
"""

import os
import shutil
from pathlib import Path

import pytest

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
