"""A model at each kind of origin that is read by Dragonfly; S3 answers only what is signed."""

import base64
import hashlib
from dataclasses import dataclass, field
from typing import Any

from fakes.fake_hub import FakeHub
from fakes.fake_oci import FakeRegistry
from fakes.fake_s3 import FakeS3, unless_signed
from fakes.faulty_http import FaultyServer
from fakes.real_s3 import ACCESS_KEY_ID, SECRET_ACCESS_KEY, s3_settings

WEIGHTS = "weights.bin"


@dataclass
class Origin:
    """The model's URI, the settings that read it, and its files."""

    uri: str
    files: dict[str, bytes]
    settings: dict[str, Any] = field(default_factory=dict)


def plain(server: FaultyServer, weights: bytes) -> Origin:
    digest = base64.b64encode(hashlib.sha256(weights).digest()).decode()
    url = server.put(f"/{WEIGHTS}", weights, headers={"Repr-Digest": f"sha-256=:{digest}:"})
    return Origin(url, {WEIGHTS: weights})


def signed_s3(server: FaultyServer, weights: bytes) -> Origin:
    bucket = FakeS3(server)
    bucket.refuse = unless_signed(ACCESS_KEY_ID, SECRET_ACCESS_KEY)
    files = _with_small(weights)
    for path, data in files.items():
        bucket.put(f"llm/{path}", data)
    return Origin("s3://models/llm", files, s3_settings(server.url))


def hub(server: FaultyServer, weights: bytes) -> Origin:
    files = _with_small(weights)
    FakeHub(server).repository("team/llm", private=True, readers=frozenset({"hf_token"})).commit({**files})
    return Origin("hf://team/llm", files, {"variables": {"HF_ENDPOINT": server.url, "HF_TOKEN": "hf_token"}})


def registry(server: FaultyServer, weights: bytes) -> Origin:
    fake, files = FakeRegistry(server), _with_small(weights)
    fake.put_files(files)
    return Origin(fake.uri(), files, {"variables": {"KSERVE_OCI_INSECURE_REGISTRY": "true"}})


def _with_small(weights: bytes) -> dict[str, bytes]:
    return {WEIGHTS: weights, "config.json": b"{}"}


ORIGINS = [plain, signed_s3, hub, registry]
