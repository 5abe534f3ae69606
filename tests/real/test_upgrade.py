"""The same arguments and environment, given to KServe's own storage initializer and to lading: the same folder.

Where the two differ, the difference is asserted: it is one of those that docs/kserve.md lists.
"""

import gzip
import io
import json
import os
import shutil
import subprocess
import sys
import tarfile
import urllib.request
import zipfile
from pathlib import Path
from typing import NamedTuple

import docopt
import hdfs
import pytest
from jwcrypto import jwe, jwk

from fakes.certificates import Authority
from fakes.fake_azure import ACCOUNT, KEY, FakeAzure, tunnel
from fakes.fake_cdh import FakeCdh
from fakes.fake_gcs import FakeGcs
from fakes.fake_hub import LFS_BYTES, FakeHub
from fakes.fake_modelscope import FakeModelScope
from fakes.fake_oci import FakeRegistry, tar
from fakes.fake_webhdfs import FakeWebHdfs
from fakes.faulty_http import FaultyServer
from fakes.git_server import GitServer
from fakes.real_s3 import ACCESS_KEY_ID, BUCKET, SECRET_ACCESS_KEY, client, moto
from fakes.trees import content, write_tree

ROOT = Path(__file__).parents[2]
REFERENCE = ROOT / ".bench/kserve/bin/python"
# What the entry point of KServe's image does with its arguments.
ENTRY_POINT = """
import os, sys
from kserve_storage import Storage
Storage.download_files(sys.argv[1::2], sys.argv[2::2])
if os.environ.get("CONFIDENTIAL_ENABLED") == "true":
    from kserve_storage.confidential import CDHSecretResolver, JWEDecryptor
    for folder in sys.argv[2::2]:
        JWEDecryptor(CDHSecretResolver(), os.environ["CONFIDENTIAL_RESOURCE_ID"]).decrypt_directory(folder)
"""
KEYS = {
    "AWS_ACCESS_KEY_ID": ACCESS_KEY_ID,
    "AWS_SECRET_ACCESS_KEY": SECRET_ACCESS_KEY,
    "AWS_DEFAULT_REGION": "us-east-1",
}


class Outcome(NamedTuple):
    """Whether it ended well, the files in each destination, and what it said."""

    ok: bool
    files: list[dict[str, bytes]]
    said: str


class Both(NamedTuple):
    reference: Outcome
    lading: Outcome

    def assert_same(self, *files: dict[str, bytes]) -> None:
        for outcome in self:
            assert outcome.ok, outcome.said
            assert outcome.files == list(files)

    def assert_differ(self, *, reference: dict[str, bytes], lading: dict[str, bytes]) -> None:
        for outcome, files in zip(self, (reference, lading), strict=True):
            assert outcome.ok, outcome.said
            assert outcome.files == [files]

    def assert_only_lading(self, files: dict[str, bytes]) -> None:
        assert not self.reference.ok
        assert self.lading.ok, self.lading.said
        assert self.lading.files == [files]


@pytest.fixture(scope="module", autouse=True)
def _the_reference_is_there():
    assert REFERENCE.exists(), "KServe's own package is not installed: run make test-servers"


@pytest.fixture
def both(tmp_path):
    """Run both with the same pairs: URIs alone, for each of which there is a new folder."""

    def run(*uris: str, **environ: str) -> Both:
        outcomes = []
        shutil.rmtree(tmp_path / "outcomes", ignore_errors=True)
        for name, command in (
            ("reference", [REFERENCE, "-c", ENTRY_POINT]),
            ("lading", [sys.executable, "-m", "lading", "init"]),
        ):
            folders = [tmp_path / "outcomes" / name / str(number) for number in range(len(uris))]
            pairs = [argument for pair in zip(uris, folders, strict=True) for argument in pair]
            home = tmp_path / "home"
            home.mkdir(exist_ok=True)
            env = {"PATH": os.environ["PATH"], "HOME": str(home), "AWS_EC2_METADATA_DISABLED": "true", **environ}
            done = subprocess.run([*command, *pairs], env=env, capture_output=True, text=True, timeout=120)
            outcomes.append(Outcome(done.returncode == 0, [_tree(folder) for folder in folders], done.stderr))
        return Both(*outcomes)

    return run


def _tree(folder: Path) -> dict[str, bytes]:
    """Every file, links followed; without lading's manifest, which is a difference everywhere."""
    found = [Path(place, name) for place, _, names in os.walk(folder, followlinks=True) for name in names]
    relative = {path.relative_to(folder).as_posix(): path for path in found}
    return {name: path.read_bytes() for name, path in relative.items() if not name.startswith(".lading")}


MODEL = {"config.json": b"{}", "weights/part 1+.bin": content(70_000), "weights/deep/er.txt": b"text"}


def zipped(files: dict[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, data in files.items():
            archive.writestr(name, data)
    return buffer.getvalue()


def tarred(files: dict[str, bytes], mode: str) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode=mode) as archive:
        for name, data in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return buffer.getvalue()


class Bucket(NamedTuple):
    endpoint: str

    def put(self, prefix: str, files: dict[str, bytes]) -> None:
        s3 = client(self.endpoint)
        for name, data in files.items():
            s3.put_object(Bucket=BUCKET, Key=f"{prefix}{name}", Body=data)

    @property
    def environ(self) -> dict[str, str]:
        return {"AWS_ENDPOINT_URL": self.endpoint, **KEYS}


@pytest.fixture
def bucket():
    with moto() as endpoint:
        # What earlier servers of this process had, this one has too.
        urllib.request.urlopen(urllib.request.Request(f"{endpoint}/moto-api/reset", method="POST")).close()
        client(endpoint).create_bucket(Bucket=BUCKET)
        yield Bucket(endpoint)


def test_s3_a_prefix_with_its_slash_and_without(both, bucket):
    bucket.put("llm/", MODEL)
    both(f"s3://{BUCKET}/llm", f"s3://{BUCKET}/llm/", **bucket.environ).assert_same(MODEL, MODEL)


def test_s3_one_object_and_a_whole_bucket(both, bucket):
    bucket.put("llm/", MODEL)
    both(f"s3://{BUCKET}/llm/config.json", **bucket.environ).assert_same({"config.json": b"{}"})
    both(f"s3://{BUCKET}", **bucket.environ).assert_same({f"llm/{path}": data for path, data in MODEL.items()})


def test_s3_several_pairs_in_one_run(both, bucket):
    bucket.put("llm/", MODEL)
    bucket.put("adapters/", {"law/a.bin": b"law"})
    run = both(f"s3://{BUCKET}/llm", f"s3://{BUCKET}/adapters/law", **bucket.environ)
    run.assert_same(MODEL, {"a.bin": b"law"})


def test_s3_one_archive_is_unpacked(both, bucket):
    packed = {"m.tar.gz": "w:gz", "m.tgz": "w:gz", "m.tar": "w", "m.tar.bz2": "w:bz2", "m.tar.xz": "w:xz"}
    archives = {name: tarred(MODEL, mode) for name, mode in packed.items()} | {"m.zip": zipped(MODEL)}
    for number, (name, data) in enumerate(archives.items()):
        bucket.put(f"packed/{number}/", {name: data})
    uris = [f"s3://{BUCKET}/packed/{number}" for number in range(len(archives))]
    both(*uris, **bucket.environ).assert_same(*[MODEL] * len(uris))


def test_s3_patterns(both, bucket):
    bucket.put("llm/", MODEL)
    run = both(
        f"s3://{BUCKET}/llm",
        **bucket.environ,
        STORAGE_ALLOW_PATTERNS='["*.json", "weights/*"]',
        STORAGE_IGNORE_PATTERNS="*.bin,*.safetensors",
    )
    run.assert_same({"config.json": b"{}", "weights/deep/er.txt": b"text"})


def test_s3_by_kserves_storage_json(both, bucket):
    bucket.put("llm/", MODEL)
    told = {"type": "s3", "endpoint_url": "http://127.0.0.1:1", "access_key_id": ACCESS_KEY_ID, "region": "us-east-1"}
    run = both(
        f"s3://{BUCKET}/llm",
        STORAGE_CONFIG=json.dumps(told | {"secret_access_key": SECRET_ACCESS_KEY}),
        STORAGE_OVERRIDE_CONFIG=json.dumps({"endpoint_url": bucket.endpoint}),
    )
    run.assert_same(MODEL)


def test_s3_empty_files_and_neighbours_of_the_prefix_are_different(both, bucket):
    bucket.put("llm/", {**MODEL, "__init__.py": b"", "folder/": b""})
    bucket.put("llm-2/", {"config.json": b"another"})
    bucket.put("llmconfig.json", {"": b"a third"})
    run = both(f"s3://{BUCKET}/llm", **bucket.environ)
    assert run.lading.files == [{**MODEL, "__init__.py": b""}]
    (found,) = run.reference.files
    assert "__init__.py" not in found
    assert found["-2/config.json"] == b"another"
    # Which of the two it has is a matter of luck.
    assert found["config.json"] in (b"{}", b"a third")


def test_s3_what_is_not_there_fails(both, bucket):
    for uri in (f"s3://{BUCKET}/none", "s3://none/llm"):
        assert [outcome.ok for outcome in both(uri, **bucket.environ)] == [False, False]


def test_gs(both, server):
    gcs = FakeGcs(server)
    for path, data in {**MODEL, "empty": b""}.items():
        gcs.put(f"llm/{path}", data)
    gcs.put("llm-2/config.json", b"another")
    environ = {"STORAGE_EMULATOR_HOST": server.url, "NO_GCE_CHECK": "true"}
    both("gs://models/llm", **environ).assert_same({**MODEL, "empty": b""})
    both("gs://models/llm/config.json", **environ).assert_same({"config.json": b"{}"})
    whole = {f"llm/{path}": data for path, data in {**MODEL, "empty": b""}.items()} | {"llm-2/config.json": b"another"}
    both("gs://models", **environ).assert_only_lading(whole)


@pytest.fixture
def azure(tmp_path):
    """An account under its own names, which a proxy leads to it."""
    authority = Authority(tmp_path)
    names = [f"{ACCOUNT}.{kind}.core.windows.net" for kind in ("blob", "file")]
    with FaultyServer(authority.server_context(*names)) as server, tunnel(server) as proxy:
        environ = {"HTTPS_PROXY": proxy, "SSL_CERT_FILE": authority.bundle, "REQUESTS_CA_BUNDLE": authority.bundle}
        yield FakeAzure(server), {**environ, "AZURE_STORAGE_ACCESS_KEY": KEY}


BLOBS = f"https://{ACCOUNT}.blob.core.windows.net/models"


def test_azure_blobs(both, azure):
    account, environ = azure
    for path, data in MODEL.items():
        account.put(f"llm/{path}", data)
    both(f"{BLOBS}/llm", f"{BLOBS}/llm/config.json", **environ).assert_same(MODEL, {"config.json": b"{}"})


def test_azure_blobs_empty_ones_and_neighbours_of_the_prefix_are_different(both, azure):
    account, environ = azure
    for path, data in {"llm/a": b"1", "llm/empty": b"", "llm-2/b": b"2"}.items():
        account.put(path, data)
    run = both(f"{BLOBS}/llm", **environ)
    run.assert_differ(reference={"a": b"1", "-2/b": b"2"}, lading={"a": b"1", "empty": b""})
    whole = {"llm/a": b"1", "llm/empty": b"", "llm-2/b": b"2"}
    both(BLOBS, **environ).assert_only_lading(whole)


def test_azure_files_are_relative_to_their_folder(both, azure):
    account, environ = azure
    deep = "1/2/3/4/5/6/deep"
    for path, data in {"llm/a": b"1", "llm/empty": b"", f"llm/{deep}": b"2"}.items():
        account.put(path, data)
    run = both(f"https://{ACCOUNT}.file.core.windows.net/models/llm", **environ)
    # What is deeper than five folders it leaves out.
    run.assert_differ(reference={"llm/a": b"1", "llm/empty": b""}, lading={"a": b"1", "empty": b"", deep: b"2"})


@pytest.fixture
def hdfs_client(tmp_path):
    """Where the real package finds the client of HDFS, which KServe's image adds, without Kerberos, which is not used."""
    folder = tmp_path / "hdfs-client"
    write_tree(
        folder,
        {
            "krbcontext/__init__.py": b"",
            "krbcontext/context.py": b"krbContext = None",
            "requests_kerberos.py": b"HTTPKerberosAuth = object",
        },
    )
    for module in (hdfs, docopt):
        place = Path(module.__file__)
        found = place.parent if place.name == "__init__.py" else place
        (folder / found.name).symlink_to(found)
    return str(folder)


@pytest.mark.parametrize("scheme", ["hdfs", "webhdfs"])
def test_hdfs(both, server, hdfs_client, tmp_path, scheme):
    cluster = FakeWebHdfs(server)
    for path, data in {**MODEL, "empty": b""}.items():
        cluster.put(f"/models/llm/{path}", data)
    cluster.make_folder("/models/nothing")
    secret = write_tree(tmp_path / "secret", {"HDFS_NAMENODE": server.url.encode(), "USER_PROXY": b"models"})
    environ = {"HDFS_SECRET_DIR": str(secret), "PYTHONPATH": hdfs_client}
    run = both(f"{scheme}://models/llm", f"{scheme}://models/llm/config.json", **environ)
    run.assert_same({**MODEL, "empty": b""}, {"config.json": b"{}"})
    # A folder with nothing in it is a success of the one and a failure of the other.
    run = both(f"{scheme}://models/nothing", **environ)
    assert (run.reference.ok, run.lading.ok) == (True, False)


HTTP = [
    ("/1/model.bin", b"1", "application/octet-stream", {"model.bin": b"1"}),
    ("/2/model.bin?a=b", b"1", "application/octet-stream", {"model.bin": b"1"}),
    ("/3/model.zip", zipped(MODEL), "application/zip", MODEL),
    ("/4/model.tar", tarred(MODEL, "w"), "application/x-tar", MODEL),
    ("/5/model.tar.gz", tarred(MODEL, "w:gz"), "application/x-gzip", MODEL),
    ("/6/model.tgz", tarred(MODEL, "w:gz"), "application/gzip", MODEL),
]


def test_http(both, server):
    for path, body, kind, _ in HTTP:
        server.put(path.partition("?")[0], body, headers={"Content-Type": kind})
    both(*(f"{server.url}{path}" for path, *_ in HTTP)).assert_same(*(files for *_, files in HTTP))


def test_http_with_the_headers_of_a_host(both, server):
    server.put("/model.bin", b"1", headers={"Content-Type": "application/octet-stream"})
    run = both(f"{server.url}/model.bin", **{"127.0.0.1-headers": '{"Authorization": "Bearer t"}'})
    run.assert_same({"model.bin": b"1"})
    assert {request.headers.get("authorization") for request in server.requests} == {"Bearer t"}


def test_http_content_types_and_encodings_are_different(both, server):
    server.put("/model.json", b"{}", headers={"Content-Type": "application/json"})
    both(f"{server.url}/model.json").assert_only_lading({"model.json": b"{}"})
    packed = gzip.compress(b"1")
    server.put("/model.bin", packed, headers={"Content-Type": "application/octet-stream", "Content-Encoding": "gzip"})
    run = both(f"{server.url}/model.bin")
    run.assert_differ(reference={"model.bin": packed}, lading={"model.bin": b"1"})


def test_a_local_folder_is_linked_by_the_one_and_copied_by_the_other(both, tmp_path):
    model = write_tree(tmp_path / "model", MODEL)
    for uri in (str(model), f"file://{model}", str(model / "config.json")):
        run = both(uri)
        run.assert_same(MODEL if uri != str(model / "config.json") else {"config.json": b"{}"})
        assert (tmp_path / "outcomes/reference/0/config.json").is_symlink()
        assert not (tmp_path / "outcomes/lading/0/config.json").is_symlink()


def test_hf_but_for_its_own_cache(both, server):
    with FaultyServer(host="localhost") as network:
        hub = FakeHub(server, network)
        repository = hub.repository("owner/model")
        repository.commit({"config.json": b"old"}, ref="v1")
        files = {**MODEL, "empty": b"", "model.safetensors": content(3 * LFS_BYTES)}
        repository.commit(files)
        environ = {"HF_ENDPOINT": server.url, "HF_HUB_DISABLE_XET": "1"}
        for uri, expected in (("hf://owner/model", files), ("hf://owner/model:v1", {"config.json": b"old"})):
            run = both(uri, **environ)
            assert run.reference.ok, run.reference.said
            left = {path for path in run.reference.files[0] if path.startswith(".cache/huggingface/")}
            assert left
            assert {path: data for path, data in run.reference.files[0].items() if path not in left} == expected
            assert run.lading.files == [expected]


def test_modelscope(both, server):
    with FaultyServer(host="localhost") as network:
        scope = FakeModelScope(server, network)
        files = {**MODEL, "configuration.json": b"{}"}
        scope.model("owner/model").commit(files)
        run = both("modelscope://owner/model", MODELSCOPE_ENDPOINT=server.url)
        assert run.lading.files == [files], run.lading.said
        assert run.reference.ok, run.reference.said
        own = {path for path in run.reference.files[0] if path.rpartition("/")[2].startswith((".", "._"))}
        assert {path: data for path, data in run.reference.files[0].items() if path not in own} == files


def test_oci(both, server):
    registry = FakeRegistry(server)
    registry.put_image(
        gzip.compress(tar(("models/config.json", b"old"), ("models/a.bin", b"1"), ("etc/passwd", b"root"))),
        gzip.compress(tar(("models/config.json", b"{}"))),
        ending="+gzip",
    )
    run = both(registry.uri(), KSERVE_OCI_INSECURE_REGISTRY="true")
    run.assert_same({"config.json": b"{}", "a.bin": b"1"})


def test_oci_whiteouts_are_different(both, server):
    registry = FakeRegistry(server)
    registry.put_image(tar(("models/old", b"1"), ("models/a", b"1")), tar(("models/.wh.old", b"")))
    run = both(registry.uri(), KSERVE_OCI_INSECURE_REGISTRY="true")
    run.assert_differ(reference={"a": b"1", "old": b"1", ".wh.old": b""}, lading={"a": b"1"})


def test_git_but_for_its_own_folder(both, tmp_path):
    authority = Authority(tmp_path)
    (tmp_path / "home").mkdir()
    (tmp_path / "home/.gitconfig").write_text(f"[http]\n\tsslCAInfo = {authority.bundle}\n")
    (tmp_path / "git").mkdir()
    with FaultyServer(authority.server_context("localhost"), host="localhost") as server:
        repository = GitServer(server, tmp_path / "git").create()
        repository.commit(MODEL)
        run = both(repository.url.removeprefix("git+"), AWS_CA_BUNDLE=authority.bundle)
    assert run.lading.files == [MODEL], run.lading.said
    assert run.reference.ok, run.reference.said
    found = run.reference.files[0]
    assert any(path.startswith(".git/") for path in found)
    assert {path: data for path, data in found.items() if not path.startswith(".git/")} == MODEL


@pytest.fixture
def encrypted(server, tmp_path):
    """What opens files, for both: the real package needs jwcrypto, an extra of it that is not installed there."""
    (tmp_path / "extra").mkdir()
    (tmp_path / "extra/jwcrypto").symlink_to(Path(jwe.__file__).parent)
    key = jwk.JWK.generate(kty="oct", size=256)
    environ = FakeCdh(server).put("kbs:///models/keys/1", key.export().encode())

    def seal(data: bytes, alg: str = "A256KW") -> bytes:
        token = jwe.JWE(data, protected={"alg": alg, "enc": "A256GCM"})
        token.add_recipient(key)
        return token.serialize(compact=True).encode()

    return seal, {**environ, "PYTHONPATH": str(tmp_path / "extra")}


def test_encrypted_models(both, bucket, encrypted):
    seal, environ = encrypted
    sealed = {"w.bin.jwe": seal(MODEL["weights/part 1+.bin"]), "deep/w": seal(b"w", "dir"), "config.json": b"{}"}
    bucket.put("llm/", sealed)
    run = both(f"s3://{BUCKET}/llm", **bucket.environ, **environ)
    run.assert_same({"w.bin": MODEL["weights/part 1+.bin"], "deep/w": b"w", "config.json": b"{}"})


def test_a_model_without_an_encrypted_file_is_delivered_by_one_and_refused_by_the_other(both, bucket, encrypted):
    bucket.put("llm/", MODEL)
    run = both(f"s3://{BUCKET}/llm", **bucket.environ, **encrypted[1])
    assert run.reference.ok, run.reference.said
    assert run.reference.files == [MODEL]
    assert not run.lading.ok
    assert run.lading.files == [{}]


def test_the_exit_code_is_another_and_nothing_stays(both, server):
    server.put("/m/model.bin", b"1", headers={"Content-Type": "application/octet-stream"})
    run = both(f"{server.url}/m/model.bin", f"{server.url}/none.bin")
    assert [outcome.ok for outcome in run] == [False, False]
    assert run.reference.files[0] == {"model.bin": b"1"}
    assert run.lading.files == [{}, {}]
