"""A client of the fake API server."""

import pytest

from fakes.fake_api_server import FakeApiServer
from lading.kubernetes.api_server import ApiServer
from lading.secret import Secret
from lading.settings.kubernetes import Access
from lading.settings.limits import Network


@pytest.fixture
def cluster(server):
    return FakeApiServer(server)


@pytest.fixture
def session(new_session):
    return new_session()


@pytest.fixture
def api(cluster, session):
    return ApiServer(Access(cluster.url, "team-a", Network(), token=Secret("t0ken")), session.http)
