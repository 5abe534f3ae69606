"""Debian's docker-registry (CNCF Distribution 2.8), filled by skopeo and oras, open and behind every kind of login."""

import base64
import hashlib
import json
import os
import re
import subprocess
import time
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import parse_qs

import jwt
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import serialization
from oras.client import OrasClient

from fakes.certificates import Authority
from fakes.fake_oci import IMAGE_CONFIG, LAYER, MANIFEST, digest_of, tar
from fakes.faulty_http import Answer, FaultyServer
from fakes.trees import MIB, content, facts, read_tree, told, whole_manifest, write_contract_tree, write_tree
from lading.errors import NotAllowed, NotFound
from lading.settings.limits import Limits, Network

INSECURE = {"KSERVE_OCI_INSECURE_REGISTRY": "true"}
LIMITS = Limits(stall_s=20.0, connect_s=5.0, attempts=4, workers=4)
# "password", by bcrypt: the only hash that this registry knows.
HTPASSWD = "user:$2b$05$YuV6IUOo2EVWNVmFI8FHfO3v544/IAiVCm0kbcqmU97UU5Ka2XJb2\n"
FILES = {"config.json": b"{}", "empty": b"", "weights/a.bin": content(2 * MIB)}
LAYERS = [
    tar(("etc/passwd", b"root"), ("models/config.json", b"old"), ("models/gone", b"")),
    tar(("models/config.json", b"{}"), ("models/.wh.gone", b""), ("models/empty", b"")),
    tar(("models/weights/a.bin", FILES["weights/a.bin"])),
]


@contextmanager
def serve(program, folder, storage, host="127.0.0.1", **configuration):
    """The registry with this configuration, on a port that it chooses; yields ``host:port``."""
    config = {
        "version": 0.1,
        "log": {"level": "info", "formatter": "json"},
        "storage": {"filesystem": {"rootdirectory": str(storage)}},
    }
    config["http"] = {"addr": "127.0.0.1:0"} | configuration.pop("http", {})
    # JSON is YAML.
    (folder / "config.yml").write_text(json.dumps(config | configuration))
    command = [program("docker-registry"), "serve", str(folder / "config.yml")]
    process = subprocess.Popen(
        command,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | {"OTEL_SDK_DISABLED": "1"},
    )
    try:
        port = next(
            found[1] for line in process.stderr if (found := re.search(r"listening on 127\.0\.0\.1:(\d+)", line))
        )
        yield f"{host}:{port}"
    finally:
        process.kill()
        process.communicate()


@pytest.fixture(scope="module")
def storage(program, tmp_path_factory):
    """What all registries here have: an image, packed in three ways, and artifacts."""
    folder = tmp_path_factory.mktemp("registry")
    with serve(program, folder, folder / "storage") as host:
        layout = write_layout(folder / "layout", LAYERS)
        for tag, options in {
            "oci": ["--format", "oci"],
            "docker": ["--format", "v2s2"],
            "zstd": ["--format", "oci", "--dest-compress-format", "zstd"],
        }.items():
            copy = [program("skopeo"), "copy", "--quiet", "--insecure-policy", "--dest-tls-verify=false", *options]
            subprocess.run([*copy, f"oci:{layout}:model", f"docker://{host}/team/car:{tag}"], check=True)
        oras_push(host, "team/files:v1", write_tree(folder / "files", FILES), ["config.json", "empty", "weights"])
        oras_push(host, "team/one:v1", write_tree(folder / "one", {"a.bin": FILES["weights/a.bin"]}), ["a.bin"])
    return folder / "storage"


def write_layout(folder, layers):
    """An image as a folder: https://github.com/opencontainers/image-spec/blob/main/image-layout.md"""
    blobs = folder / "blobs/sha256"
    blobs.mkdir(parents=True)

    def put(data, media_type):
        (blobs / hashlib.sha256(data).hexdigest()).write_bytes(data)
        return {"mediaType": media_type, "digest": digest_of(data), "size": len(data)}

    rootfs = {"type": "layers", "diff_ids": [digest_of(layer) for layer in layers]}
    config = put(json.dumps({"architecture": "amd64", "os": "linux", "rootfs": rootfs}).encode(), IMAGE_CONFIG)
    manifest = {"schemaVersion": 2, "mediaType": MANIFEST, "config": config, "layers": [put(x, LAYER) for x in layers]}
    entry = put(json.dumps(manifest).encode(), MANIFEST)
    entry["annotations"] = {"org.opencontainers.image.ref.name": "model"}
    (folder / "index.json").write_text(json.dumps({"schemaVersion": 2, "manifests": [entry]}))
    (folder / "oci-layout").write_text('{"imageLayoutVersion": "1.0.0"}')
    return folder


def oras_push(host, name, folder, files):
    before = os.getcwd()
    os.chdir(folder)
    try:
        OrasClient(hostname=host, insecure=True).push(f"{host}/{name}", files=files)
    finally:
        os.chdir(before)


@pytest.fixture(scope="module")
def host(program, storage, tmp_path_factory):
    with serve(program, tmp_path_factory.mktemp("open"), storage) as host:
        yield host


@pytest.mark.parametrize("tag", ["oci", "docker", "zstd"])
def test_a_modelcar_that_skopeo_pushed(host, pull, tmp_path, tag):
    manifest = pull(f"oci://{host}/team/car:{tag}", tmp_path / "model", limits=LIMITS, variables=INSECURE)
    assert read_tree(tmp_path / "model") == FILES
    assert re.fullmatch(rf"oci://{host}/team/car@sha256:[0-9a-f]{{64}}", manifest.resolved)
    assert len(manifest.archives) == 3
    # The pin is good for itself.
    again = pull(manifest.resolved, tmp_path / "again", limits=LIMITS, variables=INSECURE)
    assert again.digest == manifest.digest


def test_files_and_a_folder_that_oras_pushed(host, pull, tmp_path):
    uri = f"oci+fetch://{host}/team/files:v1"
    manifest = pull(uri, tmp_path / "m", limits=LIMITS, variables=INSECURE, verify="strict")
    assert read_tree(tmp_path / "m") == FILES
    verified = {file.path: str(*file.verified) for file in manifest.files if file.verified}
    assert verified == {path: digest_of(FILES[path]) for path in ("config.json", "empty")}
    assert len(manifest.archives) == 1


def test_a_large_file_comes_in_ranges(host, pull, tmp_path):
    pull(f"oci://{host}/team/one:v1", tmp_path / "m", limits=LIMITS, variables=INSECURE, range_bytes=MIB // 4)
    assert read_tree(tmp_path / "m") == {"a.bin": FILES["weights/a.bin"]}


def test_the_contract_tree_as_a_modelcar(program, host, pull, tmp_path):
    tree = write_contract_tree(tmp_path / "models")
    packed = tmp_path / "layer.tar"
    subprocess.run(["tar", "-C", tmp_path, "--format=pax", "-cf", packed, "models"], check=True)
    layout = write_layout(tmp_path / "layout", [packed.read_bytes()])
    packed.unlink()
    copy = [program("skopeo"), "copy", "--quiet", "--insecure-policy", "--dest-tls-verify=false"]
    subprocess.run([*copy, f"oci:{layout}:model", f"docker://{host}/team/tree:v1"], check=True)
    manifest = pull(f"oci://{host}/team/tree:v1", tmp_path / "m", limits=LIMITS, variables=INSECURE)
    assert told(manifest) == told(whole_manifest(tmp_path / "m")) == facts(tree)


def test_what_is_not_there_is_said_with_what_is(host, pull, tmp_path):
    with pytest.raises(NotFound) as caught:
        pull(f"oci://{host}/team/car:zst", tmp_path / "m", limits=LIMITS, variables=INSECURE)
    assert caught.value.hint == "did you mean zstd?"
    with pytest.raises(NotFound):
        pull(f"oci://{host}/team/cart:zstd", tmp_path / "m", limits=LIMITS, variables=INSECURE)


def login(host, **entry):
    return {".dockerconfigjson": json.dumps({"auths": {host: entry}})}


def test_behind_a_password(program, storage, pull, tmp_path):
    (tmp_path / "htpasswd").write_text(HTPASSWD)
    auth = {"htpasswd": {"realm": "registry", "path": str(tmp_path / "htpasswd")}}
    with serve(program, tmp_path, storage, auth=auth) as host:
        uri = f"oci://{host}/team/car:oci"
        known = INSECURE | login(host, auth=base64.b64encode(b"user:password").decode())
        pull(uri, tmp_path / "m", limits=LIMITS, variables=known)
        assert read_tree(tmp_path / "m") == FILES
        for unknown in ({}, login(host, username="user", password="wrong")):
            with pytest.raises(NotAllowed):
                pull(uri, tmp_path / "not", limits=LIMITS, variables=INSECURE | unknown)


def test_behind_a_private_authority(program, storage, pull, tmp_path):
    authority = Authority(tmp_path)
    certificate, key = authority.write_client(tmp_path, "localhost")
    tls = {"certificate": certificate, "key": key}
    with serve(program, tmp_path, storage, host="localhost", http={"tls": tls}) as host:
        uri = f"oci://{host}/team/car:oci"
        pull(uri, tmp_path / "m", limits=LIMITS, network=Network(ca_files=(authority.bundle,)))
        pull(uri, tmp_path / "i", limits=LIMITS, variables=INSECURE)
        assert read_tree(tmp_path / "m") == read_tree(tmp_path / "i") == FILES
        with pytest.raises(NotAllowed, match="certificate"):
            pull(uri, tmp_path / "not", limits=LIMITS)


class Tokens:
    """A token service whose tokens the registry believes: signed, for one repository, ``lasts_s`` seconds."""

    def __init__(self, server, certificate, key):
        self._key = Path(key).read_bytes()
        der = x509.load_pem_x509_certificate(Path(certificate).read_bytes()).public_bytes(serialization.Encoding.DER)
        self._x5c = [base64.b64encode(der).decode()]
        self.lasts_s = 60
        self.given = 0
        server.routes["/token"] = self.give

    def give(self, request):
        fields = parse_qs(request.body.decode() if request.method == "POST" else request.query)
        basic = "Basic " + base64.b64encode(b"user:password").decode()
        repository = fields["scope"][0].split(":")[1]
        # One repository is public, the car is not.
        known = request.headers.get("authorization") == basic or fields.get("refresh_token") == ["identity"]
        if not known and repository != "team/one":
            return Answer(401)
        self.given += 1
        access = [{"type": "repository", "name": repository, "actions": ["pull"]}]
        now = int(time.time())
        claims = {"iss": "tokens", "sub": "user", "aud": "registry", "jti": str(self.given), "access": access}
        times = {"iat": now, "nbf": now - 10, "exp": now + self.lasts_s}
        token = jwt.encode(claims | times, self._key, algorithm="ES256", headers={"x5c": self._x5c})
        name = "access_token" if request.method == "POST" else "token"
        return Answer(200, body=json.dumps({name: token, "expires_in": self.lasts_s}).encode())


def test_behind_a_token_service(program, storage, pull, tmp_path):
    authority = Authority(tmp_path)
    with FaultyServer() as server:
        tokens = Tokens(server, *authority.write_client(tmp_path, "tokens"))
        auth = {
            "realm": f"{server.url}/token",
            "service": "registry",
            "issuer": "tokens",
            "rootcertbundle": authority.bundle,
        }
        with serve(program, tmp_path, storage, auth={"token": auth}) as host:
            entries = [{"username": "user", "password": "password"}, {"identitytoken": "identity"}]
            for number, entry in enumerate(entries):
                known = INSECURE | login(host, **entry)
                pull(f"oci://{host}/team/car:oci", tmp_path / f"m{number}", limits=LIMITS, variables=known)
                assert read_tree(tmp_path / f"m{number}") == FILES
            assert tokens.given == 2
            pull(f"oci://{host}/team/one:v1", tmp_path / "public", limits=LIMITS, variables=INSECURE)
            with pytest.raises(NotAllowed):
                pull(f"oci://{host}/team/car:oci", tmp_path / "not", limits=LIMITS, variables=INSECURE)
