"""Proxies by prefix."""

import pytest

from lading.errors import UsageError
from lading.model.uri import ModelURI
from lading.settings.limits import Network
from lading.settings.proxies import read_proxies
from lading.settings.settings import Settings
from lading.settings.variables import Variables

S3, HUB = ModelURI.parse("s3://models/llm"), ModelURI.parse("hf://team/llm")


def settings(**rule: object) -> Settings:
    variables = Variables({"DFDAEMON": "http://10.0.0.7:4001"})
    return Settings(
        proxies=read_proxies({"proxies": [rule]}, variables), network=Network(https_proxy="http://usual:3128")
    )


def test_a_proxy_is_for_the_uris_below_its_prefix_in_the_place_of_the_usual_one():
    found = settings(prefix="s3://models", url="http://cache:3128")
    assert found.for_uri(S3).network.https_proxy == found.for_uri(S3).network.http_proxy == "http://cache:3128"
    assert found.for_uri(HUB).network == found.network
    assert found.relay_for(S3) is None


def test_a_dfdaemon_is_for_files_alone_and_the_usual_proxy_for_the_rest():
    found = settings(prefix="s3://models", url="http://127.0.0.1:4001", dragonfly=True)
    assert found.for_uri(S3).network == found.network
    assert found.relay_for(S3) == found.proxies[0]
    assert found.relay_for(HUB) is None


def test_a_variable_may_tell_where_the_dfdaemon_of_this_node_is():
    found = settings(prefix="s3://models", url={"env": "DFDAEMON"}, dragonfly=True)
    assert found.proxies[0].url == "http://10.0.0.7:4001"


@pytest.mark.parametrize(
    ("rule", "message"),
    [
        ({"url": "http://cache:3128"}, "no prefix"),
        ({"prefix": "/models", "url": "http://cache:3128"}, "no scheme"),
        ({"prefix": "s3://models"}, "needs url"),
        ({"prefix": "s3://models", "url": "cache:3128"}, "not an http or https URL"),
        ({"prefix": "s3://models", "url": "http://cache:3128", "crc": "allow"}, "there are none"),
        ({"prefix": "hdfs://models", "url": "http://127.0.0.1:4001", "dragonfly": True}, "does not read hdfs://"),
        ({"prefix": "s3://models", "url": "http://proxy.example.com", "dragonfly": True}, "sent unencrypted"),
        ({"prefix": "s3://models", "url": "http://127.0.0.1:4001", "dragonfly": True, "crc": "maybe"}, "crc"),
        ({"prefix": "s3://models", "url": "http://u:p@127.0.0.1:4001", "dragonfly": True}, "takes no login"),
    ],
)
def test_a_rule_that_could_not_hold_is_refused(rule, message):
    with pytest.raises(UsageError, match=message) as caught:
        settings(**rule)
    assert "proxies, entry 1" in caught.value.message


def test_a_password_in_a_proxys_url_is_not_shown():
    rule = {"prefix": "s3://models", "url": "http://user:s3cret@cache:3128"}
    assert "s3cret" not in repr(settings(**rule).proxies)
    with pytest.raises(UsageError) as caught:
        settings(**rule | {"url": ["http://user:s3cret@cache:3128"]})
    assert "s3cret" not in str(caught.value) + caught.value.hint
