"""Signs images as cosign does: version 2 under a tag, version 3 by a bundle that refers to the image.

``tests/real/test_image_signers.py`` holds it to that program.
"""

import base64
import json
from typing import Any

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec

from fakes.fake_oci import FakeRegistry
from fakes.oms_signer import Edit, Signer, untouched
from fakes.sigstore_services import Identified

BUNDLE = "application/vnd.dev.sigstore.bundle.v0.3+json"
TEXT = "application/vnd.dev.cosign.simplesigning.v1+json"
SIGNATURE = "dev.cosignproject.cosign/signature"
PREDICATE = "https://sigstore.dev/cosign/sign/v1"


def tag_of(digest: str) -> str:
    return digest.replace(":", "-") + ".sig"


def signed_text(digest: str, reference: str) -> dict[str, Any]:
    """What the older form signs."""
    return {
        "critical": {
            "identity": {"docker-reference": reference},
            "image": {"docker-manifest-digest": digest},
            "type": "cosign container image signature",
        },
        "optional": None,
    }


def sign_by_tag(
    registry: FakeRegistry, digest: str, *signers: Signer, text: Edit = untouched, layer: Edit = untouched
) -> None:
    """Sign an image in the older form, by each signer; ``text`` changes what is signed, ``layer`` its descriptor."""
    document = signed_text(digest, f"{registry.host}/{registry.repository}")
    text(document)
    body = json.dumps(document).encode()
    layers = []
    for signer in signers:
        signature = base64.b64encode(signer.key.sign(body, ec.ECDSA(hashes.SHA256()))).decode()
        layers.append(registry.put_blob(body, TEXT) | {"annotations": {SIGNATURE: signature}})
        layer(layers[-1])
    config = registry.put_blob(b"{}", "application/vnd.oci.image.config.v1+json")
    registry.put_manifest(tag_of(digest), {"config": config, "layers": layers})


def sign_by_referrer(
    registry: FakeRegistry,
    digest: str,
    signer: Signer,
    *,
    statement: Edit = untouched,
    bundle: Edit = untouched,
    manifest: Edit = untouched,
) -> dict[str, Any]:
    """Sign an image by a bundle, of which each part can be changed; returns the descriptor of what refers to it."""
    algorithm, _, value = digest.partition(":")
    document = {
        "_type": "https://in-toto.io/Statement/v1",
        "subject": [{"digest": {algorithm: value}}],
        "predicateType": PREDICATE,
        "predicate": {},
    }
    statement(document)
    text = json.dumps(document).encode()
    seal = signer.seal_logged if isinstance(signer, Identified) else signer.seal
    sealed = seal(text, bundle=bundle)
    facts = {
        "artifactType": BUNDLE,
        "config": registry.put_blob(b"{}", "application/vnd.oci.empty.v1+json"),
        "layers": [registry.put_blob(sealed, BUNDLE)],
        "annotations": {
            "dev.sigstore.bundle.content": "dsse-envelope",
            "dev.sigstore.bundle.predicateType": document["predicateType"],
        },
    }
    manifest(facts)
    return registry.put_referrer(digest, facts)
