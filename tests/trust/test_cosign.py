"""Signatures of images by cosign, in both forms: no byte of what is signed can be changed."""

import json
from contextlib import suppress

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fakes.cosign_signer import BUNDLE, SIGNATURE, TEXT, sign_by_referrer, sign_by_tag
from fakes.fake_oci import FakeRegistry
from fakes.oms_signer import Signer
from lading.errors import Untrusted
from lading.model.digest import Digest
from lading.model.signature import Attachment
from lading.trust.cosign import image_signer
from lading.trust.public_key import read_public_keys

SIGNER = Signer()
KEYS = read_public_keys(SIGNER.public_pem)


class _Offline(FakeRegistry):
    """One that nobody asks: it only keeps what is signed."""

    host = "registry.example"

    def __init__(self) -> None:
        self.repository, self.lists_referrers = "team/model", True
        self.manifests, self.blobs = {}, {}

    def attached(self, media_type: str) -> Attachment:
        manifests = [json.loads(body) for name, body in self.manifests.items() if ":" in name]
        [layer] = [each for found in manifests for each in found["layers"] if each["mediaType"] == media_type]
        content = bytes(self.blobs[layer["digest"]].content)
        return Attachment("sha256:0", media_type, layer.get("annotations", {}), content)


REGISTRY = _Offline()
IMAGE = Digest.parse(REGISTRY.put_files({"config.json": b"{}"})["digest"])
sign_by_tag(REGISTRY, str(IMAGE), SIGNER)
sign_by_referrer(REGISTRY, str(IMAGE), SIGNER)
FORMS = [REGISTRY.attached(TEXT), REGISTRY.attached(BUNDLE)]


@given(st.data(), st.sampled_from(FORMS))
@settings(max_examples=200, deadline=None)
def test_a_form_with_any_byte_changed_is_refused_or_says_the_same(data: st.DataObject, form: Attachment) -> None:
    """Parts of a bundle are not signed: a hint of the key, and what logs say of it."""
    text = bytearray(form.content)
    place = data.draw(st.integers(0, len(text) - 1))
    text[place] = data.draw(st.integers(0, 255).filter(lambda byte: byte != text[place]))
    with suppress(Untrusted):
        assert image_signer(form._replace(content=bytes(text)), IMAGE, KEYS) == KEYS[0].name
        assert form.media_type == BUNDLE


@given(st.binary(max_size=100) | st.text().map(str.encode))
@settings(max_examples=100, deadline=None)
def test_what_is_no_signature_is_refused(content: bytes) -> None:
    for form in FORMS:
        with pytest.raises(Untrusted):
            image_signer(form._replace(content=content), IMAGE, KEYS)


@given(st.text(max_size=100))
@settings(max_examples=100, deadline=None)
def test_an_annotation_that_is_no_signature_is_refused(text: str) -> None:
    with pytest.raises(Untrusted):
        image_signer(FORMS[0]._replace(annotations={SIGNATURE: text}), IMAGE, KEYS)


@pytest.mark.parametrize(
    ("edit", "why"),
    [
        (
            lambda bundle: bundle["dsseEnvelope"].update(signatures=bundle["dsseEnvelope"]["signatures"] * 2),
            "not one sig",
        ),
        (lambda bundle: bundle.update(mediaType="application/json"), "its mediaType is not"),
        (lambda bundle: bundle["dsseEnvelope"].update(payload="?"), "it holds what is not base64"),
        (lambda bundle: bundle.pop("dsseEnvelope"), "it is not such JSON"),
    ],
    ids=["two signatures", "type", "base64", "member"],
)
def test_a_bundle_that_is_none_says_why(edit, why: str) -> None:
    document = json.loads(FORMS[1].content)
    edit(document)
    with pytest.raises(Untrusted, match=f"not a signature of an image by cosign .*{why}"):
        image_signer(FORMS[1]._replace(content=json.dumps(document).encode()), IMAGE, KEYS)
