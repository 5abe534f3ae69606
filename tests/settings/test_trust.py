"""Rules of trust: which one is for an origin, and that one by which nothing could be judged is an error at once."""

import os
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from fakes.oms_signer import Certified, Signer
from fakes.sigstore_services import Sigstore
from lading.errors import UsageError
from lading.model.uri import ModelURI
from lading.settings.settings import Settings
from lading.settings.trust import Formats, TrustRule, trust_rule_for
from lading.trust.public_key import read_public_keys

KEYS = read_public_keys(Signer().public_pem)
IDENTITY = {"identity": "me@example.com", "issuer": "https://issuer.example", "trusted_root": "/nowhere/root.json"}


def load(tmp_path: Path, *rules: Any) -> tuple[TrustRule, ...]:
    place = tmp_path / "lading.yaml"
    place.write_text(yaml.safe_dump({"trust": list(rules)}))
    return Settings.load({"LADING_CONFIG": str(place)}).trust


@pytest.fixture
def key(tmp_path: Path) -> str:
    (tmp_path / "key.pub").write_bytes(Signer().public_pem)
    return str(tmp_path / "key.pub")


def test_a_rule_has_the_strict_answer_to_what_it_does_not_say(tmp_path: Path, key: str) -> None:
    [rule] = load(tmp_path, {"prefix": "s3://models/prod/", "signature": {"key": key}})
    assert (rule.mode, rule.unsigned, rule.extra_files, rule.bundle) == ("enforce", "refuse", "refuse", "model.sig")
    assert (rule.shown, rule.named) == ("s3://models/prod/", "the rule for s3://models/prod/")


def test_a_rule_may_say_all_of_it(tmp_path: Path, key: str) -> None:
    rule, off = load(
        tmp_path,
        {
            "mode": "warn",
            "unsigned": "allow",
            "extra_files": "skip",
            "signature": {"key": key, "file": "oms/model.sig"},
        },
        {"prefix": "file:///", "mode": False},
    )
    assert (rule.mode, rule.unsigned, rule.extra_files, rule.bundle) == ("warn", "allow", "skip", "oms/model.sig")
    assert (rule.prefix, rule.named, off.mode) == (None, "the rule for every origin", "off")


def test_a_rule_may_ask_for_signatures_of_images(tmp_path: Path, key: str) -> None:
    signature = {"kind": "cosign", "key": key}
    images, every = load(tmp_path, {"prefix": "oci://", "signature": signature}, {"signature": signature})
    assert (images.kind, images.shown, len(images.keys)) == ("cosign", "oci://", 1)
    assert (every.kind, every.prefix) == ("cosign", None)


@pytest.mark.parametrize(
    ("rule", "why"),
    [
        ("s3://models/", "trust, entry 1 is not a mapping"),
        ({}, "has no signature with either a key, a certificate or sigstore"),
        ({"prefix": "s3://models/"}, "has no signature with either a key, a certificate or sigstore"),
        ({"prefix": "s3://models/", "mode": "warn"}, "has no signature with either a key, a certificate or sigstore"),
        ({"signature": {}}, "has no signature with either a key, a certificate or sigstore"),
        ({"signature": {"key": ""}}, "has no signature with either a key, a certificate or sigstore"),
        ({"signature": {"key": 7}}, "key is 7"),
        ({"signature": "key"}, "signature is 'key'"),
        ({"signature": {"keys": "KEY"}}, "unknown key 'keys'"),
        ({"signature": {"sigstore": {}}}, "sigstore needs identity"),
        ({"signature": {"sigstore": "me"}}, "sigstore is 'me'"),
        ({"signature": {"sigstore": IDENTITY | {"issuer": ""}}}, "has an empty identity or issuer"),
        ({"signature": {"sigstore": IDENTITY | {"identity": ""}}}, "has an empty identity or issuer"),
        ({"signature": {"sigstore": IDENTITY}}, "No such file"),
        ({"signature": {"sigstore": IDENTITY | {"trusted_root": __file__}}}, "it is no trusted root"),
        ({"signature": {"key": "KEY", "sigstore": IDENTITY}}, "has no signature with either a key, a certificate"),
        (
            {"signature": {"key": "KEY", "certificate": "KEY"}},
            "has no signature with either a key, a certificate or sigstore",
        ),
        ({"signature": {"certificate": "KEY"}}, "cannot be used: it holds no certificate"),
        ({"signature": {"certificate": "/nowhere/roots.pem"}}, "No such file"),
        ({"signature": {"key": "/nowhere/key.pub"}}, "No such file"),
        ({"signature": {"key": "/"}}, "Is a directory"),
        ({"signature": {"key": "/dev/zero"}}, "/dev/zero has more than"),
        ({"signature": {"key": __file__}}, "cannot be used: it holds no PEM block"),
        ({"signature": {"key": "KEY", "file": "../model.sig"}}, "file '../model.sig' has"),
        ({"signature": {"key": "KEY", "file": ""}}, "file '' has"),
        ({"signature": {"key": "KEY"}, "mode": "strict"}, "mode is 'strict'"),
        ({"signature": {"key": "KEY"}, "mode": True}, "mode is true"),
        ({"signature": {"key": "KEY"}, "unsigned": "warn"}, "unsigned is 'warn'"),
        ({"signature": {"key": "KEY"}, "extra_files": "ignore"}, "extra_files is 'ignore'"),
        ({"signature": {"key": "KEY"}, "prefix": 7}, "prefix is 7"),
        ({"signature": {"key": "KEY"}, "prefix": "s3://a/../b"}, "has a '.' or '..'"),
        ({"signature": {"key": "KEY"}, "prefix": "s3"}, "the prefix 's3' is neither a URI nor an absolute path"),
        ({"signature": {"key": "KEY"}, "prefix": "*"}, "the prefix '*' is neither a URI nor an absolute path"),
        ({"signature": {"key": "KEY"}, "prefix": " s3://a"}, "the prefix ' s3://a' is neither a URI nor"),
        (
            {"signature": {"key": "KEY"}, "prefix": "model-registry://iris"},
            "model-registry://iris is no place of files",
        ),
        ({"signature": {"key": "KEY"}, "prefix": "s4://a"}, "s4://a is no place of files"),
        ({"signature": {"key": "KEY"}, "prefix": "s3:/a/b"}, "s3:/a/b names no host or bucket"),
        ({"signature": {"key": "KEY"}, "prefix": "s3://a*"}, "s3://a* has a pattern"),
        ({"signature": {"key": "KEY"}, "prefix": "s3://a/**"}, "s3://a/** has a pattern"),
        ({"signature": {"key": "KEY"}, "mode": "off"}, "judges nothing"),
        ({"signature": {"kind": "gpg", "key": "KEY"}}, "kind is 'gpg'"),
        ({"signature": {"kind": "cosign", "key": "KEY"}, "prefix": "s3://a"}, "only images are signed by cosign"),
        ({"signature": {"kind": "cosign", "key": "KEY"}, "extra_files": "skip"}, "extra_files is not for images"),
        ({"signature": {"kind": "cosign", "key": "KEY", "file": "a.sig"}}, "file is not for images"),
        ({"signature": {"kind": "cosign", "key": "P-384"}}, "cosign signs by keys on P-256"),
        ({"signature": {"kind": "notation", "key": "KEY"}}, "notation signs by certificates"),
        ({"signature": {"kind": "cosign", "certificate": "ROOTS"}}, "cosign signs by keys on P-256"),
        ({"formats": {"code": "warn"}}, "code is 'warn'"),
        ({"formats": {"pickle": "refuse"}}, "unknown key 'pickle'"),
        ({"formats": {"hub_scan": "allow"}}, "hub_scan is 'allow'"),
        ({"prefix": "s3://models/", "formats": {"hub_scan": "warn"}}, "hub_scan says nothing about s3://models/"),
        ({"formats": "refuse"}, "formats is 'refuse'"),
        ({"formats": {}, "unsigned": "allow"}, "has no signature with either a key, a certificate or sigstore"),
    ],
)
def test_a_rule_that_cannot_be_judged_is_refused_when_it_is_read(tmp_path: Path, key: str, rule: Any, why: str) -> None:
    files = {"KEY": key, "P-384": str(tmp_path / "384.pub"), "ROOTS": str(tmp_path / "roots.pem")}
    Path(files["ROOTS"]).write_bytes(Certified("root", authority=True).certificate_pem)
    Path(files["P-384"]).write_bytes(Signer("P-384").public_pem)
    if isinstance(rule, dict) and isinstance(rule.get("signature"), dict):
        rule = rule | {"signature": {name: files.get(str(value), value) for name, value in rule["signature"].items()}}
    with pytest.raises(UsageError, match="trust") as refused:
        load(tmp_path, rule)
    assert why in refused.value.message


def test_a_rule_may_judge_the_content_of_files_alone(tmp_path: Path, key: str) -> None:
    alone, hub, both = load(
        tmp_path,
        {"prefix": "hf://", "formats": {}},
        {"prefix": "HF://owner/", "formats": {"hub_scan": "refuse"}},
        {"signature": {"key": key}, "formats": {"code": "scan", "damaged": "allow"}},
    )
    assert (alone.keys, alone.formats) == ((), Formats("refuse", "refuse"))
    assert (hub.formats, hub.asks_the_hub, alone.asks_the_hub) == (Formats(hub_scan="refuse"), True, False)
    assert (len(both.keys), both.formats) == (1, Formats("scan", "allow"))


def test_a_scan_without_its_scanner_is_refused_when_it_is_read(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setitem(sys.modules, "picklescan", None)
    with pytest.raises(UsageError, match="scan needs picklescan, which is not installed") as refused:
        load(tmp_path, {"formats": {"code": "scan"}})
    assert refused.value.hint == "pip install lading[scan]"


def test_a_key_or_root_that_is_cut_off_is_not_left_out_in_silence(tmp_path: Path, key: str) -> None:
    root = Certified("root", authority=True).certificate_pem
    for kind, text in (("key", Path(key).read_bytes()), ("certificate", root)):
        (tmp_path / "two").write_bytes(text + text[:80])
        with pytest.raises(UsageError, match="holds a PEM block that is cut off"):
            load(tmp_path, {"signature": {kind: str(tmp_path / "two")}})


def test_a_private_key_in_the_place_of_the_public_one_is_not_shown(tmp_path: Path) -> None:
    (tmp_path / "key").write_bytes(Signer().private_pem)
    with pytest.raises(UsageError, match="holds a private key") as refused:
        load(tmp_path, {"signature": {"key": str(tmp_path / "key")}})
    assert "BEGIN" not in f"{refused.value.message}{refused.value.hint}"


def test_a_certificate_needs_an_extra_and_that_is_said_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "roots.pem").write_bytes(Certified("root", authority=True).certificate_pem)
    rule = {"signature": {"certificate": str(tmp_path / "roots.pem")}}
    [read] = load(tmp_path, rule)
    assert (read.method, len(read.roots), read.keys) == ("certificate", 1, ())
    monkeypatch.setitem(sys.modules, "cryptography", None)
    with pytest.raises(UsageError, match="needs the extra certificates") as refused:
        load(tmp_path, rule)
    assert "lading[certificates]" in refused.value.hint


def test_an_identity_needs_an_extra_and_that_is_said_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = tmp_path / "root.json"
    root.write_bytes(Sigstore().trusted_root)
    rule = {"signature": {"sigstore": IDENTITY | {"trusted_root": str(root)}}}
    [read] = load(tmp_path, rule)
    assert (read.method, read.signers_file, read.keys, read.roots) == ("sigstore", str(root), (), ())
    assert read.identity == ("me@example.com", "https://issuer.example", root.read_bytes())
    monkeypatch.setitem(sys.modules, "sigstore.verify", None)
    with pytest.raises(UsageError, match="needs the extra sigstore") as refused:
        load(tmp_path, rule)
    assert "lading[sigstore]" in refused.value.hint


def test_two_rules_for_one_place_are_refused(tmp_path: Path, key: str) -> None:
    signature = {"key": key}
    with pytest.raises(UsageError, match="entry 2 has the prefix of another one"):
        load(tmp_path, {"prefix": "s3://a/b", "signature": signature}, {"prefix": "s3a://a/b/", "signature": signature})


def rules(*prefixes: str) -> tuple[TrustRule, ...]:
    return tuple(TrustRule(ModelURI.parse(text) if text else None, KEYS) for text in prefixes)


def chosen(uri: str, *prefixes: str) -> str | None:
    rule = trust_rule_for(rules(*prefixes), ModelURI.parse(uri))
    return None if rule is None else rule.shown


def test_the_longest_prefix_counts_whatever_stands_first() -> None:
    prefixes = ("", "s3://a/", "s3://a/b/c", "s3://a/b")
    assert chosen("s3://a/b/c/d", *prefixes) == "s3://a/b/c"
    assert chosen("s3://a/b/cd", *prefixes) == "s3://a/b"
    assert chosen("s3://a/x", *prefixes) == "s3://a/"
    assert chosen("s3://b/x", *prefixes) == ""
    assert chosen("s3://b/x", *prefixes[1:]) is None
    for order in (("https://", "https://a"), ("https://a", "https://")):
        assert chosen("https://a/b", "", *order) == "https://a"
        assert chosen("https://b/a", "", *order) == "https://"


def test_a_rule_that_is_off_takes_its_place_out_of_a_wider_one() -> None:
    wide, off = rules("", "file:///scratch")
    both = (wide, off._replace(mode="off"))
    assert trust_rule_for(both, ModelURI.parse("/scratch/a")) is None
    assert trust_rule_for(both, ModelURI.parse("/scratched")) is wide


@pytest.mark.parametrize(
    ("prefix", "uri"),
    [
        ("s3://prod/", "s3a://prod/iris"),
        ("s3://", "s3a://prod/iris"),
        ("https:///", "https://h.example/a.bin"),
        ("git+https://", "https://h.example/a/b.git"),
        ("hdfs://", "hdfs://models/iris"),
        ("file://", "/models/iris"),
        ("s3://prod/llm", "s3://prod//llm/x"),
        ("s3://prod/llm", "s3://prod/llm?versionId=1"),
        ("s3://prod/llm", "S3://prod/llm"),
        ("gs://prod/", "gcs://prod/iris"),
        ("https://h.example/models/", "https://H.EXAMPLE:443/models/a.bin"),
        ("https://h.example/models/", "https://h.example./models/a.bin"),
        ("https://h.example/models/", "https://user:password@h.example/models/a.bin"),
        ("https://h.example/models/", "https://h.example/%6dodels/a.bin"),
        ("https://h.example/models/", "https://h.example//models/a.bin?x=y#z"),
        ("hf://ibm-granite/", "hf://IBM-Granite/granite-3:main"),
        ("hf://ibm-granite/granite-3", "hf://ibm-granite/granite-3:a/branch"),
        ("hf://ibm-granite/granite-3", "hf://ibm-granite/granite-3@abc/folder"),
        ("hf://ibm-granite/", "hf://models/ibm-granite/granite-3"),
        ("hf://models/ibm-granite/", "hf://ibm-granite/granite-3"),
        ("hf://gpt2", "hf://gpt2:main"),
        ("hf://gpt2", "hf://gpt2@main"),
        ("modelscope://owner/", "ms://owner/model:v1"),
        ("oci://registry.corp/models/", "oci+fetch://registry.corp/models/a:v1"),
        ("oci://registry.corp/models/a", "oci://registry.corp/models/a:v1"),
        ("oci://", "oci://registry.corp:5000/models/a:v1"),
        ("oci://registry.corp", "oci://registry.corp:443/a"),
        ("oci://Registry.corp:5000/models", "oci+fetch://registry.corp:5000/models/a:v1"),
        ("oci://docker.io/team/", "oci://index.docker.io/team/a"),
        ("oci://docker.io/library/", "oci://docker.io/iris:v1"),
        ("oci://docker.io/library/iris", "oci://index.docker.io/iris"),
        ("oci://docker.io/iris", "oci://docker.io/library/iris"),
        ("oci://docker.io/iris", "oci://docker.io/iris:v1"),
        ("oci://registry.corp/models/a", "oci://registry.corp/models/a@sha256:00"),
        ("hdfs:///models/", "hdfs://models/iris"),
        ("hdfs://models/", "webhdfs:///models/iris"),
        ("webhdfs://namenode:9870/models", "webhdfs://NameNode:9870/models/iris"),
        ("git+https://h.example/a/b", "git+https://h.example/a/b.git@main#subdirectory=x"),
        ("git+https://h.example/a/b.git", "https://h.example/a/b.git"),
        ("abfss://models@acc.dfs.core.windows.net/prod", "https://acc.blob.core.windows.net/models/prod/a"),
        ("file:///models/", "/models/iris"),
        ("file:///models/", "file://localhost/models/iris"),
        ("file:///models/", "/models/../models//iris"),
        ("/models", "file:///%6dodels/iris"),
    ],
)
def test_a_place_is_found_however_it_is_spelled(prefix: str, uri: str) -> None:
    assert chosen(uri, prefix) is not None


@pytest.mark.parametrize(
    ("prefix", "uri"),
    [
        ("s3://prod/llm", "s3://prod/llmevil"),
        ("s3://prod/llm", "s3://prod/llm:evil"),
        ("s3://prod/llm", "s3://prod/llm@evil"),
        ("s3://prod", "s3://prod-evil/x"),
        ("s3://prod/LLM", "s3://prod/llm"),
        ("https://h.example/models", "https://h.example.evil/models/x"),
        ("https://h.example/models", "http://h.example/models/x"),
        ("https://h.example/models", "https://h.example:444/models/x"),
        ("hf://ibm-granite/granite", "hf://ibm-granite/granite-evil"),
        ("hf://ibm", "hf://ibm-granite/granite"),
        ("oci://registry.corp/models/a", "oci://registry.corp/models/ab:v1"),
        ("oci://registry.corp/models", "oci://registry.corp:5000/models/a"),
        ("s3://", "gs://prod/iris"),
        ("https://", "http://h.example/a.bin"),
        ("oci://registry", "oci://registry.corp/models/a"),
        ("oci://docker.io/library/", "oci://docker.io/team/iris"),
        ("oci://registry.corp/library/", "oci://registry.corp/iris"),
        ("hf://ibm-granite/granite", "hf://datasets/ibm-granite/granite"),
        ("hdfs:///models", "hdfs:///modelsevil"),
        ("webhdfs://namenode:9870/models", "webhdfs://other:9870/models"),
        ("file:///models", "/models/../evil"),
        ("file:///models", "/modelsevil"),
    ],
)
def test_another_place_is_not_taken_for_it(prefix: str, uri: str) -> None:
    assert chosen(uri, prefix) is None


def test_a_link_leads_to_the_rule_of_where_it_leads(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    os.symlink(tmp_path / "real", tmp_path / "link")
    assert chosen(str(tmp_path / "link/x"), f"file://{tmp_path}/real") is not None


@pytest.mark.parametrize(
    "uri",
    [
        "https://h/a/../b",
        "https://h/a/%2e%2e/b",
        "https://h/./b",
        "s3://a/b/..",
        "https://h/a/..;x/b",
        "https://h/a\\..\\b",
        "https://h/a/..%5cb",
    ],
)
def test_a_path_that_a_server_may_read_otherwise_is_refused(uri: str) -> None:
    with pytest.raises(UsageError, match=r"has a '.' or '..'"):
        chosen(uri, "s3://elsewhere/")
    assert trust_rule_for((), ModelURI.parse(uri)) is None
