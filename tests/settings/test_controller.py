"""What checks may ask, by the controller's configuration."""

import pytest

from lading.errors import UsageError
from lading.settings.controller import ControllerSettings, read_controller
from lading.settings.settings import Settings

ALLOWED = ControllerSettings(urls=("https://models.example.com/v2", "http://gate.models.svc:8080/"))


@pytest.mark.parametrize(
    "url",
    [
        "https://models.example.com/v2",
        "https://models.example.com/v2/models/iris",
        "http://gate.models.svc:8080/",
        "http://gate.models.svc:8080/a?b=c",
    ],
)
def test_a_url_that_begins_as_the_configuration_says_is_allowed(url):
    assert ALLOWED.allows(url)


@pytest.mark.parametrize(
    "url",
    [
        "https://models.example.com/v20",
        "https://models.example.com/",
        "https://models.example.com.evil.test/v2/",
        "https://models.example.com@evil.test/v2/",
        "https://models.example.com:8443/v2/",
        "http://models.example.com/v2/",
        "https://models.example.com/v2/../admin",
        "https://models.example.com/v2/./../admin",
        "https://models.example.com/v2/%2e%2e/admin",
        "https://models.example.com/v2/..%2fadmin",
        "https://models.example.com/v2/\\..\\admin",
        "http://gate.models.svc:8080@evil.test/",
        "http://gate.models.svc:80800/",
        "http://gate.models.svc:8080/a b",
        "http://gate.models.svc:8080/a\r\nHost: b",
        "http://gate.models.svc:8080/a#b",
        "HTTP://gate.models.svc:8080/",
        "file:///etc/passwd",
        "",
    ],
)
def test_any_other_url_is_not(url):
    assert not ALLOWED.allows(url)


def test_nothing_is_allowed_unless_it_is_configured():
    assert not ControllerSettings().allows("https://models.example.com/")


def test_prometheus_may_be_one_that_enforces_the_namespace():
    own = ControllerSettings(prometheus="http://proxy:8080/?namespace={namespace}")
    assert own.prometheus_for("team-a") == "http://proxy:8080/?namespace=team-a"


@pytest.mark.parametrize(
    "controller",
    [
        {"prometheus": "prometheus:9090"},
        {"prometheus": "http://user:s3cret@prometheus:9090"},
        {"urls": ["ftp://models"]},
        {"urls": ["https://models/a/../b"]},
        {"urls": [""]},
    ],
    ids=str,
)
def test_what_is_no_plain_url_is_refused(controller):
    with pytest.raises(UsageError, match=r"^lading.yaml: controller"):
        read_controller(Settings(controller=controller, file="lading.yaml"))
