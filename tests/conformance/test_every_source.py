"""What holds for every source because there is one HTTP client: proxies and certificate authorities.

The scenes are those of the same faults.
"""

from types import SimpleNamespace

import pytest

from conformance.scene import scenes
from fakes.certificates import Authority
from fakes.fake_azure import tunnel
from fakes.faulty_http import FaultyServer
from fakes.trees import read_tree
from lading.errors import LadingError
from lading.settings.limits import Network
from lading.settings.settings import Settings

SCENES = scenes("FAULTS")
DEAD = "http://127.0.0.1:1"
# Google's tokens are asked for at Google's hosts only.
HOSTS = {"gcs": "nowhere.googleapis.com"}
AZURE_FILES = "lading.file.core.windows.net"


@pytest.fixture
def destination(tmp_path):
    return tmp_path / "destination"


@pytest.fixture(params=SCENES)
def name(request) -> str:
    return request.param


@pytest.fixture
def scene(name, server):
    with SCENES[name](server) as scene:
        yield scene


@pytest.fixture
def authority(tmp_path) -> Authority:
    return Authority(tmp_path)


@pytest.fixture
def hidden(name, authority):
    """A scene over TLS whose host's name leads nowhere, and the URL of a proxy that knows where it is."""
    host = HOSTS.get(name, "nowhere.test")
    context = authority.server_context(host, AZURE_FILES)
    with FaultyServer(context) as server, tunnel(SimpleNamespace(url=server.url)) as proxy:
        server.url = f"https://{host}"
        with SCENES[name](server) as scene:
            scene.uri = scene.uri.replace(f"http://{AZURE_FILES}", f"https://{AZURE_FILES}")
            # What is asked to be insecure shows nothing here.
            variables = {key: text for key, text in scene.settings["variables"].items() if "INSECURE" not in key}
            settings = {key: value for key, value in scene.settings.items() if key != "network"}
            yield scene, settings | {"variables": variables, "limits": scene.limits}, proxy


def network(**environment: str) -> Network:
    return Settings.load(environment).network


def test_every_request_goes_through_the_proxy_and_trusts_the_bundle(hidden, authority, destination, pull):
    scene, settings, proxy = hidden
    reached = network(HTTPS_PROXY=proxy, CA_BUNDLE_CONFIGMAP_NAME="", AWS_CA_BUNDLE=authority.bundle)
    pull(scene.uri, destination, network=reached, **settings)
    assert read_tree(destination) == scene.files


def test_a_certificate_that_no_bundle_vouches_for_is_refused(hidden, destination, pull):
    scene, settings, proxy = hidden
    with pytest.raises(LadingError) as caught:
        pull(scene.uri, destination, network=network(HTTPS_PROXY=proxy), **settings)
    assert "certificate" in caught.value.message
    assert not scene.server.requests
    assert not destination.exists()


def test_a_host_of_no_proxy_is_reached_directly(name, scene, destination, pull):
    if AZURE_FILES in scene.uri:
        pytest.skip("this scene's host is known to its proxy only")
    reached = network(HTTP_PROXY=DEAD, HTTPS_PROXY=DEAD, NO_PROXY="127.0.0.1,localhost")
    pull(scene.uri, destination, limits=scene.limits, **(scene.settings | {"network": reached}))
    assert read_tree(destination) == scene.files
