"""Rules of trust as the commands tell of them."""

import json
import re
from pathlib import Path

import pytest

from command_line import Outcome, contents, lading, write_model
from fakes.cosign_signer import sign_by_referrer
from fakes.fake_oci import FakeRegistry
from fakes.faulty_http import FaultyServer
from fakes.oms_signer import Signer
from fakes.sigstore_services import IDENTITY, ISSUER, Sigstore
from lading.trust.public_key import read_public_keys

SIGNER = Signer()
NAME = f"key sha256:{read_public_keys(SIGNER.public_pem)[0].fingerprint}"


class Place:
    """A signed model, a rule for it, and a destination."""

    def __init__(self, folder: Path) -> None:
        self.model, self.dest = write_model(folder / "model"), folder / "dest"
        self.key = folder / "models.pub"
        self.key.write_bytes(SIGNER.public_pem)
        self.rule = {"prefix": f"file://{self.model}", "signature": {"key": str(self.key)}}
        self.log = folder / "termination"
        self.log.touch()
        self.sign()

    @property
    def files(self) -> dict[str, bytes]:
        return {path: data for path, data in contents(self.model).items() if path != "model.sig"}

    def sign(self) -> None:
        (self.model / "model.sig").write_bytes(SIGNER.sign(self.files))

    def run(self, command: str, *words: object, **rule: object) -> Outcome:
        config = json.dumps({"trust": [self.rule | rule]})
        environ = {"LADING_CONFIG_YAML": config, "LADING_TERMINATION_LOG": str(self.log)}
        return lading(command, *map(str, words), environ=environ)


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place(tmp_path)


def test_a_pull_says_who_signed(place: Place) -> None:
    outcome = place.run("pull", place.model, place.dest)
    assert outcome.code == 0
    assert f"{place.model} is signed by {NAME}, as the rule for file://{place.model} asks for\n" in outcome.err
    signed = place.run("pull", "--json", place.model, place.dest).json["signature"]
    assert (signed["signer"], signed["bundle"]) == (NAME, "model.sig")


def test_a_refusal_has_a_code_of_its_own_and_leaves_nothing(place: Place) -> None:
    (place.model / "extra.bin").write_bytes(b"x")
    outcome = place.run("init", place.model, place.dest)
    assert outcome.code == 6
    assert outcome.err.startswith("error[untrusted]: not what was signed in model.sig: extra extra.bin\nhint: ")
    assert place.log.read_text().startswith("error[untrusted]: ")
    assert not place.dest.exists()


def test_the_message_that_kubernetes_shows_says_who_signed(place: Place) -> None:
    place.run("init", place.model, place.dest)
    assert json.loads(place.log.read_text())["signed_by"] == NAME


def test_a_check_says_who_signed_and_what_would_be_refused(place: Place) -> None:
    outcome = place.run("check", place.model, place.dest)
    assert (outcome.code, outcome.err) == (0, "")
    assert f"ok: signed by {NAME}\n" in outcome.out
    assert place.run("check", place.model, place.dest, "--json").json["signature"]["signer"] == NAME
    (place.model / "model.sig").unlink()
    refused = place.run("check", place.model, place.dest, "--json")
    assert (refused.code, refused.json["code"]) == (6, "untrusted")
    warned = place.run("check", place.model, place.dest, mode="warn")
    assert warned.code == 0
    assert warned.err.startswith(f"warning: {place.model} is not trusted, and delivered all the same: ")


def test_an_explanation_says_by_which_rule_it_is_judged_and_how(place: Place) -> None:
    outcome = place.run("resolve", "--explain", place.model)
    assert f"signed by   {NAME}\n" in outcome.out
    assert f"trust: the rule for file://{place.model}, mode enforce: model.sig must be signed by sha256:" in outcome.out
    assert " (unsigned: refuse, extra_files: refuse)\n" in outcome.out
    told = place.run("resolve", "--explain", "--json", place.model).json
    assert told["trust"]["signers"] == [NAME.removeprefix("key ")]
    assert told["signature"]["signer"] == NAME
    other = place.run("resolve", "--explain", place.model, prefix="s3://elsewhere")
    assert "trust: no rule covers it\n" in other.out
    assert "trust: there are no rules\n" in lading("resolve", "--explain", place.model).out


def test_an_identity_is_explained_and_told_by_its_name_and_issuer(place: Place) -> None:
    services = Sigstore()
    place.key.write_bytes(services.trusted_root)
    (place.model / "model.sig").write_bytes(services.signer().sign_logged(place.files))
    who = {"identity": IDENTITY, "issuer": ISSUER, "trusted_root": str(place.key)}
    outcome = place.run("resolve", "--explain", place.model, signature={"sigstore": who})
    assert f"signed by   sigstore {IDENTITY} of {ISSUER}\n" in outcome.out
    assert f"model.sig must be signed by {IDENTITY} of {ISSUER} (unsigned: refuse" in outcome.out


def test_a_model_that_cannot_be_trusted_is_still_explained(place: Place) -> None:
    (place.model / "model.sig").unlink()
    outcome = place.run("resolve", "--explain", place.model)
    assert outcome.code == 6
    assert outcome.out.startswith("trust: the rule for ")


def test_verify_judges_again_by_the_rules_of_today_without_the_origin(place: Place) -> None:
    place.run("pull", place.model, place.dest)
    for path in sorted(place.model.rglob("*"), reverse=True):
        path.unlink() if path.is_file() else path.rmdir()
    outcome = place.run("verify", place.dest)
    assert (outcome.code, outcome.err) == (0, "")
    assert outcome.out.endswith(f"    signed by {NAME}\n")
    told = place.run("verify", "--json", place.dest).json
    assert (told["signature"]["signer"], told["signature_verified"]) == (NAME, True)
    place.key.write_bytes(Signer().public_pem)
    refused = place.run("verify", place.dest)
    assert (refused.code, refused.out) == (6, "")
    assert refused.err.startswith("error[untrusted]: model.sig is not signed by a key that is trusted\n")
    warned = place.run("verify", place.dest, mode="warn")
    assert warned.code == 0
    assert "is not trusted" in warned.err


def test_verify_without_rules_says_who_signed_when_it_was_delivered(place: Place) -> None:
    place.run("pull", place.model, place.dest)
    assert lading("verify", place.dest).out.endswith(f"    signed by {NAME}, as recorded when it was delivered\n")


def test_an_older_lading_reads_the_manifest_of_a_signed_model(place: Place) -> None:
    """It knows neither key: both are beside those that it reads."""
    place.run("pull", place.model, place.dest)
    document = json.loads((place.dest / ".lading.manifest").read_text())
    assert document["format"] == 1
    assert set(document.pop("signature")) == {"signer", "rule", "bundle", "digest"}
    (place.dest / ".lading.manifest").write_text(json.dumps(document))
    assert lading("verify", place.dest).code == 0


def test_a_key_that_is_missing_is_said_when_the_configuration_is_read(place: Place) -> None:
    place.key.unlink()
    for command in ("pull", "check"):
        outcome = place.run(command, place.model, place.dest)
        assert outcome.code == 2
        assert re.search(
            r"error\[usage\]: LADING_CONFIG_YAML: trust, entry 1: signature: key: .*: No such file", outcome.err
        )
    assert not place.dest.exists()


def test_an_image_is_explained_checked_and_verified_by_who_signed_it(server: FaultyServer, tmp_path: Path) -> None:
    registry, key, dest = FakeRegistry(server), tmp_path / "cosign.pub", tmp_path / "dest"
    digest = registry.put_files({"config.json": b"{}"})["digest"]
    key.write_bytes(SIGNER.public_pem)
    rule = {"prefix": f"oci://{registry.host}", "signature": {"kind": "cosign", "key": str(key)}}
    log = tmp_path / "termination"
    log.touch()
    environ = {"KSERVE_OCI_INSECURE_REGISTRY": "true", "LADING_TERMINATION_LOG": str(log)}
    environ["LADING_CONFIG_YAML"] = json.dumps({"trust": [rule]})

    refused = lading("check", registry.uri(), dest, environ=environ)
    assert (refused.code, refused.out) == (6, "")
    assert f"@{digest} is not signed: it has no cosign signature\nhint: " in refused.err
    sign_by_referrer(registry, digest, SIGNER)
    checked = lading("check", registry.uri(), dest, environ=environ)
    assert checked.out.startswith(f"ok: oci://{registry.host}/team/model@{digest} is readable")
    assert f"ok: signed by {NAME}\n" in checked.out
    explained = lading("resolve", "--explain", registry.uri(), environ=environ).out
    assert (
        f"the image must be signed, as cosign does it, by {NAME.removeprefix('key ')} (unsigned: refuse)\n" in explained
    )
    told = lading("resolve", "--explain", "--json", registry.uri(), environ=environ).json
    assert (told["trust"]["kind"], told["signature"]["kind"]) == ("cosign", "cosign")
    assert lading("init", registry.uri(), dest, environ=environ).code == 0
    assert json.loads(log.read_text())["signed_by"] == NAME
    verified = lading("verify", dest, environ=environ)
    assert verified.out.endswith(f"    signed by {NAME}, as recorded when it was delivered\n")
    assert lading("verify", "--json", dest, environ=environ).json["signature_verified"] is False
    key.write_bytes(Signer().public_pem)
    assert lading("verify", dest, environ=environ).code == 6
