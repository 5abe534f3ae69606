"""What holds for every source because there is one HTTP client: proxies, certificate authorities, and secrets kept.

The scenes are those of the same faults.
"""

import json
import re
from types import SimpleNamespace

import pytest

from conformance.scene import Scene, scenes
from fakes.certificates import Authority
from fakes.fake_azure import tunnel
from fakes.faulty_http import ALWAYS, ANYWHERE, Answer, Fault, FaultyServer, cut
from fakes.trees import read_tree
from lading.cli.main import main
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


def echo(code: int) -> Fault:
    """An error that says back all that it was told, in every shape in which a source might read it."""

    def change(request, _) -> Answer:
        said = json.dumps({**request.headers, "target": request.target, "body": request.body.decode("latin-1")})
        body = {"error": {"code": said, "message": said, "errors": [said]}, "errors": [{"code": said, "message": said}]}
        text = json.dumps(body | {"error_description": said, "Message": said, "message": said})
        if (
            "xml" in request.headers.get("accept", "")
            or "x-ms-version" in request.headers
            or "x-amz-date" in request.headers
        ):
            text = f"<Error><Code>{said}</Code><Message>{said}</Message></Error>"
        headers = {
            "WWW-Authenticate": f'Bearer realm="{said[:500]}"',
            "X-Error-Message": said[:2000],
            "X-Error-Code": said[:2000],
        }
        return Answer(code, {key: value.replace('"', "'") for key, value in headers.items()}, text.encode())

    return Fault(change, times=ALWAYS)


def secrets_of(scene: Scene) -> set[str]:
    variables = scene.settings["variables"]
    named = {text for name, text in variables.items() if re.search("SECRET|TOKEN|PASSWORD|_KEY|headers|json", name)}
    keys = {json.loads(text)["private_key"][40:80] for text in named if "private_key" in text}
    # A word of the protocol, and one that an explanation may well use.
    return {text for text in named | keys | {scene.secret} if text not in ("SharedKey", "password")}


ENDINGS = {
    "delivered": None,
    "refused": lambda scene: echo(403),
    "unknown": lambda scene: echo(401),
    "odd": lambda scene: echo(418),
    "not listed": lambda scene: Fault(echo(400).change, times=ALWAYS, on=scene.lists),
    "not read": lambda scene: Fault(echo(403).change, times=ALWAYS, on=scene.reads),
    "broken off": lambda scene: cut(at=100_000, times=ALWAYS, on=scene.reads),
    "led away": lambda scene: Fault(
        lambda request, _: Answer(302, {"Location": f"ftp://{scene.secret}@h/?token={scene.secret}"}),
        times=ALWAYS,
        on=scene.reads,
    ),
}


@pytest.mark.parametrize("ending", ENDINGS)
def test_no_secret_is_printed_or_written_however_a_delivery_ends(
    name, scene, ending, destination, tmp_path, monkeypatch, capfd
):
    settings = scene.settings
    for variable, text in settings["variables"].items():
        monkeypatch.setenv(variable, text)
    if "network" in settings:
        monkeypatch.setenv("http_proxy", settings["network"].http_proxy)
    log = tmp_path / "termination-log"
    log.touch()
    monkeypatch.setenv("LADING_TERMINATION_LOG", str(log))
    monkeypatch.setenv("S3_MAX_ATTEMPTS", "1")
    monkeypatch.setenv("LADING_LOG_FORMAT", "json")
    make = ENDINGS[ending]
    if make is not None:
        scene.server.misbehave(ANYWHERE, make(scene))
    code = main(["init", scene.uri, str(destination)])
    assert code in ((0,) if make is None else (3, 4, 5, 6, 8))
    said = "".join(capfd.readouterr()) + log.read_text()
    assert said
    # Of layers, what was read is in the tree already and is not kept.
    if ending == "broken off" and name != "oci-layers":
        assert (destination / ".lading/journal").exists()
    for place in destination.rglob("*"):
        said += place.name
        if place.is_file() and place.stat().st_size < 100_000:
            said += place.read_bytes().decode("latin-1")
    assert not [secret for secret in secrets_of(scene) if secret in said]
    assert secrets_of(scene) or scene.secret == "SharedKey"
