"""Signatures by an identity: who signed, when, and that the logs have it.  Nothing is asked of a network."""

import base64
import copy
import datetime
import json
import socket
from collections.abc import Iterator
from importlib import resources
from typing import Any

import pytest
from cryptography.x509.oid import ExtendedKeyUsageOID
from hypothesis import given, settings
from hypothesis import strategies as st

from fakes.oms_signer import Signer
from fakes.sigstore_services import IDENTITY, ISSUER, NOW, Log, Sigstore, Stamps, authority, in_root
from lading.errors import Untrusted
from lading.trust.bundle import read_bundle
from lading.trust.sigstore import Identity, check_trusted_root, signed_payload

FILES, OTHERS = {"config.json": b"{}"}, {"config.json": b"[]"}
SERVICES = Sigstore()
US = SERVICES.signer()
DAY = datetime.timedelta(days=1)


def judged(text: bytes, root: bytes = SERVICES.trusted_root, identity: str = IDENTITY, issuer: str = ISSUER) -> bytes:
    return signed_payload(text, Identity(identity, issuer, root), "model.sig")


def refused(text: bytes, *args: Any, **kwargs: Any) -> str:
    """The reason of a refusal."""
    with pytest.raises(Untrusted, match=r"model\.sig is not signed by .* of .*, as far as Sigstore can tell") as error:
        judged(text, *args, **kwargs)
    assert error.value.hint
    return error.value.hint


@pytest.mark.parametrize(
    "how", [{}, {"stamped": True}, {"rekor": 2}], ids=["Rekor 1", "Rekor 1 and a time stamp", "Rekor 2"]
)
def test_what_an_identity_has_signed_is_verified_by_the_log_and_the_time_stamp(how: dict[str, Any]) -> None:
    text = US.sign_logged(FILES, **how)
    assert judged(text) == read_bundle(text, "model.sig").payload
    assert read_bundle(text, "model.sig").method == "sigstore"


def test_an_identity_may_be_the_uri_of_a_workflow() -> None:
    workflow = "https://github.example/org/repo/.github/workflows/train.yml@refs/heads/main"
    text = SERVICES.signer(identity=workflow).sign_logged(FILES)
    assert judged(text, identity=workflow)
    assert "SANs do not match" in refused(text, identity=workflow.replace("main", "evil"))


@pytest.fixture
def no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    def connect(*_: object) -> None:
        raise AssertionError("a connection was asked for")

    for name in ("connect", "connect_ex", "sendto"):
        monkeypatch.setattr(socket.socket, name, connect)
    monkeypatch.setattr(socket, "getaddrinfo", connect)


def test_nothing_is_asked_of_a_network(no_network: None) -> None:
    check_trusted_root(SERVICES.trusted_root)
    assert judged(US.sign_logged(FILES))
    refused(US.sign_logged(FILES), Sigstore().trusted_root)


def test_another_identity_or_issuer_is_refused_and_named() -> None:
    text = US.sign_logged(FILES)
    assert IDENTITY in refused(text, identity="other@example.com")
    assert ISSUER in refused(text, issuer="https://other.example")
    for nearly in (IDENTITY[:-1], f"{IDENTITY}.evil", IDENTITY.upper(), "*", f"{IDENTITY}\0"):
        refused(text, identity=nearly)


def test_an_old_signature_stays_good_after_its_certificate_has_expired() -> None:
    assert judged(SERVICES.signer(since=NOW - 300 * DAY).sign_logged(FILES, at=NOW - 300 * DAY))


@pytest.mark.parametrize("late", [-DAY, 2 * DAY], ids=["before", "after"])
def test_a_certificate_must_be_valid_when_the_log_took_the_signature(late: datetime.timedelta) -> None:
    refused(US.sign_logged(FILES, at=NOW + late))


@pytest.mark.parametrize("rekor", [1, 2])
def test_a_certificate_must_be_valid_when_the_time_stamp_was_made(rekor: int) -> None:
    past = NOW - 2 * DAY
    refused(SERVICES.signer(since=past).sign_logged(FILES, at=past, rekor=rekor, stamped=True))


def without_promise(document: dict[str, Any]) -> None:
    del document["verificationMaterial"]["tlogEntries"][0]["inclusionPromise"]


def without_stamp(document: dict[str, Any]) -> None:
    del document["verificationMaterial"]["timestampVerificationData"]


def test_without_a_signed_time_nothing_is_verified() -> None:
    assert "signed timestamp" in refused(US.sign_logged(FILES, bundle=without_promise))
    assert "signed timestamp" in refused(US.sign_logged(FILES, rekor=2, bundle=without_stamp))


STRANGERS = {
    "the authority's certificate": {
        "certificateAuthorities": [in_root("authority", authority("authority").certificate)]
    },
    "the key of the log": {"tlogs": [Log("rekor.example").in_root]},
    "the key of the log of certificates": {"ctlogs": [Log("ct.example").in_root]},
}


@pytest.mark.parametrize("changes", STRANGERS.values(), ids=STRANGERS)
def test_a_service_that_is_not_in_the_trusted_root_is_not_believed(changes: dict[str, Any]) -> None:
    """So it is for a key that was withdrawn, whatever it has signed before."""
    refused(US.sign_logged(FILES), SERVICES.root(**changes))
    check_trusted_root(SERVICES.root(**changes))


def test_a_time_stamp_of_another_authority_is_not_believed() -> None:
    text = US.sign_logged(FILES, rekor=2)
    refused(text, SERVICES.root(timestampAuthorities=[Stamps().in_root]))
    refused(text, SERVICES.root(timestampAuthorities=[]))


def test_another_log_or_log_of_certificates_is_not_believed() -> None:
    refused(US.sign_logged(FILES, log=Log("rekor.example")))
    refused(SERVICES.signer(ct_log=Log("ct.example")).sign_logged(FILES))


def test_a_certificate_for_something_else_may_not_sign() -> None:
    assert "code signing" in refused(SERVICES.signer(usage=ExtendedKeyUsageOID.SERVER_AUTH).sign_logged(FILES))


OURS, THEIRS = (json.loads(US.sign_logged(files)) for files in (FILES, OTHERS))


def mixed(**parts: Any) -> bytes:
    """Our bundle with parts of the other one, which the same person has signed."""
    document = copy.deepcopy(OURS)
    for name, value in parts.items():
        document[name] = value
    return json.dumps(document).encode()


def test_parts_of_another_bundle_of_the_same_person_prove_nothing() -> None:
    refused(mixed(verificationMaterial=THEIRS["verificationMaterial"]))
    refused(mixed(dsseEnvelope=THEIRS["dsseEnvelope"]))
    entry = THEIRS["verificationMaterial"]["tlogEntries"][0]
    ours = OURS["verificationMaterial"]["tlogEntries"][0]
    own = OURS["verificationMaterial"] | {"tlogEntries": [ours | {"inclusionProof": entry["inclusionProof"]}]}
    assert "root hash" in refused(mixed(verificationMaterial=own))
    for name in ("canonicalizedBody", "inclusionPromise", "logIndex"):
        refused(
            mixed(verificationMaterial=OURS["verificationMaterial"] | {"tlogEntries": [ours | {name: entry[name]}]})
        )


def test_a_second_envelope_by_another_spelling_is_refused() -> None:
    """The verifier knows two spellings of each member, and lading's own reader one."""
    refused(mixed(dsse_envelope=THEIRS["dsseEnvelope"]))
    material = OURS["verificationMaterial"]
    refused(mixed(verification_material=THEIRS["verificationMaterial"]))
    refused(mixed(verificationMaterial=material | {"tlog_entries": material["tlogEntries"]}))


def test_what_is_no_such_bundle_is_refused() -> None:
    for text in (b"", b"{}", b"[]", b"\xff", Signer().sign(FILES)):
        refused(text)
    for entries in ([], [None], [OURS["verificationMaterial"]["tlogEntries"][0]] * 2):
        refused(mixed(verificationMaterial=OURS["verificationMaterial"] | {"tlogEntries": entries}))


def fields(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """The paths of all members of a document that are text."""
    for key, each in value.items() if isinstance(value, dict) else enumerate(value):
        if isinstance(each, str):
            yield (*path, key)
        else:
            yield from fields(each, (*path, key))


STAMPED = json.loads(US.sign_logged(FILES, stamped=True))
NEWER = json.loads(US.sign_logged(FILES, rekor=2))


def changes(value: str) -> st.SearchStrategy[Any]:
    """What somebody may write in the place of a text: another byte, or something else."""
    try:
        data = base64.b64decode(value, validate=True)
    except ValueError:
        data = b""
    flipped = st.builds(
        lambda at, bit: base64.b64encode(data[:at] + bytes([data[at] ^ 1 << bit]) + data[at + 1 :]).decode(),
        st.integers(0, max(len(data) - 1, 0)),
        st.integers(0, 7),
    )
    others = st.sampled_from(["", "0", "-1", "9" * 30, None, 7, [], {}, value[:-4], value + value])
    return flipped | others if data else others


@given(st.data(), st.sampled_from([STAMPED, NEWER]))
@settings(max_examples=120, deadline=None)
def test_a_bundle_with_any_member_changed_is_refused_or_says_the_same(data: st.DataObject, bundle: Any) -> None:
    document = copy.deepcopy(bundle)
    *above, last = data.draw(st.sampled_from(list(fields(document))))
    place = document
    for key in above:
        place = place[key]
    place[last] = data.draw(changes(place[last]))
    try:
        payload = judged(json.dumps(document).encode())
    except Untrusted:
        return
    assert payload == base64.b64decode(bundle["dsseEnvelope"]["payload"])


def test_the_root_of_the_public_services_is_one() -> None:
    """sigstore-python ships a copy of it, by the address of the repository that it is from."""
    folder = resources.files("sigstore._store") / "https%3A%2F%2Ftuf-repo-cdn.sigstore.dev"
    check_trusted_root((folder / "trusted_root.json").read_bytes())


@pytest.mark.parametrize(
    "root",
    [
        b"",
        b"{}",
        b"[]",
        b"-----BEGIN CERTIFICATE-----",
        SERVICES.root(mediaType="application/json"),
        SERVICES.root(tlogs=[]),
        SERVICES.root(ctlogs=[]),
        SERVICES.root(certificateAuthorities=[]),
        SERVICES.root(certificateAuthorities=[None]),
    ],
    ids=["empty", "no member", "a list", "a certificate", "a type", "no log", "no log of certificates", "no", "null"],
)
def test_a_root_by_which_nothing_can_be_verified_is_refused(root: bytes) -> None:
    with pytest.raises(ValueError, match="no trusted root"):
        check_trusted_root(root)
