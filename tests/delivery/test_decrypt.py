"""Encrypted models, sealed by jwcrypto as KServe's users seal them: opened whole and right, or not delivered."""

import subprocess
import sys
import tarfile
from io import BytesIO

import pytest
from jwcrypto import jwe, jwk

from command_line import contents, lading, write_model
from fakes.fake_cdh import FakeCdh
from fakes.trees import content, read_tree, write_tree
from lading.errors import IntegrityError, NotAllowed, NotFound, Unavailable, Unsupported, UsageError
from lading.events import AlreadyDelivered, Decrypted
from lading.settings.confidential import read_confidential
from lading.settings.variables import Variables

RESOURCE = "kbs:///models/keys/llama-1"
KEY = jwk.JWK.generate(kty="oct", size=256)
WEIGHTS = content(3_000_001)


def seal(data: bytes, key: jwk.JWK = KEY, *, alg: str = "A256KW", enc: str = "A256GCM", **header: str) -> bytes:
    token = jwe.JWE(data, protected={"alg": alg, "enc": enc, **header})
    token.add_recipient(key)
    return token.serialize(compact=True).encode()


@pytest.fixture
def hub(server):
    return FakeCdh(server)


@pytest.fixture
def variables(hub):
    return hub.put(RESOURCE, KEY.export().encode())


@pytest.fixture
def model(tmp_path):
    files = {"weights.bin.jwe": seal(WEIGHTS), "deep/vocabulary": seal(b"words"), "config.json": b"{}"}
    return write_tree(tmp_path / "model", files)


OPENED = {"weights.bin": WEIGHTS, "deep/vocabulary": b"words", "config.json": b"{}"}


def test_files_are_opened_by_suffix_and_by_content_and_the_others_are_named(pull, model, variables, tmp_path, events):
    manifest = pull(str(model), tmp_path / "m", variables=variables)
    assert read_tree(tmp_path / "m") == OPENED
    assert not (tmp_path / "m/.lading").exists()
    assert [file.path for file in manifest.archives] == ["deep/vocabulary", "weights.bin.jwe"]
    assert manifest.opened_by == RESOURCE
    assert [event for event in events if isinstance(event, Decrypted)] == [Decrypted(RESOURCE, 2, 1, "config.json")]


def test_what_was_opened_can_be_verified_later(model, variables, tmp_path):
    assert lading("pull", model, tmp_path / "m", environ=variables).code == 0
    assert lading("verify", tmp_path / "m").code == 0
    (tmp_path / "m/weights.bin").write_bytes(WEIGHTS[:-1] + b"!")
    assert lading("verify", tmp_path / "m").code == 6


@pytest.mark.parametrize(
    ("alg", "enc", "size"),
    [
        ("dir", "A128GCM", 128),
        ("dir", "A192GCM", 192),
        ("dir", "A256GCM", 256),
        ("dir", "A128CBC-HS256", 256),
        ("dir", "A192CBC-HS384", 384),
        ("dir", "A256CBC-HS512", 512),
        ("A128KW", "A256GCM", 128),
        ("A192KW", "A256GCM", 192),
        ("A256KW", "A256CBC-HS512", 256),
        ("A128GCMKW", "A256GCM", 128),
        ("A256GCMKW", "A128CBC-HS256", 256),
    ],
)
@pytest.mark.parametrize("size_bytes", [0, 1_500_001])
def test_every_symmetric_algorithm_at_every_size(pull, hub, tmp_path, alg, enc, size, size_bytes):
    key, data = jwk.JWK.generate(kty="oct", size=size), content(size_bytes)
    write_tree(tmp_path / "model", {"w.jwe": seal(data, key, alg=alg, enc=enc)})
    pull(str(tmp_path / "model"), tmp_path / "m", variables=hub.put(RESOURCE, key.export().encode()))
    assert read_tree(tmp_path / "m") == {"w": data}


# A key of plain bytes that are no text, as a Secret of such a file holds it.
RAW = bytes(range(128, 160))


@pytest.mark.parametrize(
    ("key", "resource"),
    [
        (KEY, KEY.export().encode()),
        (KEY, KEY.export(as_dict=True)["k"].encode()),
        (KEY, KEY.export(as_dict=True)["k"].encode() + b"\n"),
        (jwk.JWK(kty="oct", k=jwe.base64url_encode(RAW)), RAW),
    ],
    ids=["a JWK", "base64url", "base64url and a line's end", "bytes"],
)
def test_a_key_has_any_of_the_forms_that_kserve_takes(pull, hub, tmp_path, key, resource):
    write_tree(tmp_path / "model", {"w.jwe": seal(b"w", key)})
    pull(str(tmp_path / "model"), tmp_path / "m", variables=hub.put(RESOURCE, resource))
    assert read_tree(tmp_path / "m") == {"w": b"w"}


def damaged(sealed: bytes, part: int) -> bytes:
    """The same with another letter in the midst of one of its five parts."""
    parts = sealed.split(b".")
    middle = len(parts[part]) // 2
    other = b"A" if parts[part][middle : middle + 1] != b"A" else b"B"
    parts[part] = parts[part][:middle] + other + parts[part][middle + 1 :]
    return b".".join(parts)


@pytest.mark.parametrize(
    ("name", "data", "error"),
    [
        *[(f"w{part}.jwe", damaged(seal(WEIGHTS), part), (IntegrityError, Unsupported)) for part in range(5)],
        *[
            (f"c{part}.jwe", damaged(seal(b"w" * 99, enc="A256CBC-HS512"), part), (IntegrityError, Unsupported))
            for part in range(5)
        ],
        ("cut.jwe", seal(WEIGHTS)[:-1000], IntegrityError),
        ("short-tag.jwe", seal(b"w")[:-4], IntegrityError),
        ("other.jwe", seal(b"w", jwk.JWK.generate(kty="oct", size=256)), IntegrityError),
        ("plain.jwe", b"plaintext", IntegrityError),
        ("empty.jwe", b"", IntegrityError),
        ("dots.jwe", b"....", IntegrityError),
        ("list.jwe", b"W10.a.b.c.d", IntegrityError),
        ("endless.jwe", b"eyJ" + b"A" * 100_000, IntegrityError),
        ("zip.jwe", seal(b"w", zip="DEF"), Unsupported),
        (
            "rsa.jwe",
            b"eyJhbGciOiJSU0EtT0FFUCIsImVuYyI6IkEyNTZHQ00ifQ.AA.AAAAAAAAAAAAAAAA.AA.AAAAAAAAAAAAAAAAAAAAAA",
            Unsupported,
        ),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_what_cannot_be_opened_is_not_delivered(pull, tmp_path, variables, name, data, error):
    write_tree(tmp_path / "model", {name: data, "good.jwe": seal(b"good")})
    with pytest.raises(error, match=f"^{name}: "):
        pull(str(tmp_path / "model"), tmp_path / "m", variables=variables)
    assert not (tmp_path / "m/.lading.manifest").exists()
    assert [path.name for path in (tmp_path / "m").iterdir()] in ([".lading"], [])
    # No piece of what was not authenticated stays.
    assert not (tmp_path / "m/.lading/opened").exists()


def test_a_model_without_an_encrypted_file_is_refused(pull, tmp_path, variables):
    # Such a beginning alone makes nothing a JWE.
    write_tree(
        tmp_path / "model", {"tokens.txt": b"eyJhbGciOiJub25lIn0.text", "eyes.txt": b"eyJ", "config.json": b"{}"}
    )
    with pytest.raises(IntegrityError, match="is encrypted, but CONFIDENTIAL_ENABLED is set"):
        pull(str(tmp_path / "model"), tmp_path / "m", variables=variables)
    assert not (tmp_path / "m/.lading.manifest").exists()


def test_two_files_that_would_have_one_name_are_refused(pull, tmp_path, variables):
    write_tree(tmp_path / "model", {"w": b"plain", "w.jwe": seal(b"w")})
    with pytest.raises(IntegrityError, match="both called 'w'"):
        pull(str(tmp_path / "model"), tmp_path / "m", variables=variables)


def test_encrypted_files_in_an_archive_are_opened_too(pull, tmp_path, variables):
    archive = BytesIO()
    with tarfile.open(fileobj=archive, mode="w:gz") as tar:
        for name, data in {"w.jwe": seal(b"w"), "config.json": b"{}"}.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, BytesIO(data))
    write_tree(tmp_path / "model", {"m.tar.gz": archive.getvalue()})
    for _ in range(2):
        pull(str(tmp_path / "model"), tmp_path / "m", variables=variables)
        assert read_tree(tmp_path / "m") == {"w": b"w", "config.json": b"{}"}


def test_an_opened_model_is_not_fetched_or_opened_again(pull, model, variables, hub, tmp_path, events):
    pull(str(model), tmp_path / "m", variables=variables)
    pull(str(model), tmp_path / "m", variables=variables)
    assert AlreadyDelivered(str(tmp_path / "m")) in events
    assert hub.asked(RESOURCE) == 1


def test_a_new_version_replaces_what_was_opened(pull, model, variables, tmp_path):
    pull(str(model), tmp_path / "m", variables=variables)
    (model / "deep/vocabulary").unlink()
    (model / "weights.bin.jwe").write_bytes(seal(b"new weights"))
    pull(str(model), tmp_path / "m", variables=variables)
    assert read_tree(tmp_path / "m") == {"weights.bin": b"new weights", "config.json": b"{}"}


def test_neither_ciphertext_nor_plaintext_that_was_delivered_before_counts(pull, model, variables, tmp_path):
    pull(str(model), tmp_path / "m")
    assert read_tree(tmp_path / "m") == read_tree(model)
    pull(str(model), tmp_path / "m", variables=variables)
    assert read_tree(tmp_path / "m") == OPENED
    pull(str(model), tmp_path / "m")
    assert read_tree(tmp_path / "m") == read_tree(model)


def test_the_key_is_asked_for_before_a_byte_is_fetched(pull, hub, server, tmp_path):
    server.put("/w.jwe", seal(b"w"))
    variables = hub.put(RESOURCE, b"") | {"CONFIDENTIAL_RESOURCE_ID": "kbs:///models/keys/none"}
    with pytest.raises(NotFound, match="asked for kbs:///models/keys/none, answered 404"):
        pull(f"{server.url}/w.jwe", tmp_path / "m", variables=variables)
    # The listing's.
    assert len(server.requests_for("/w.jwe")) == 1
    assert not (tmp_path / "m").exists()


def test_a_hub_that_is_not_there_is_an_error(pull, model, variables, tmp_path):
    with pytest.raises(Unavailable, match=r"^the Confidential Data Hub at http://127\.0\.0\.1:1: "):
        pull(str(model), tmp_path / "m", variables=variables | {"CDH_ADDR": "http://127.0.0.1:1"})
    assert not (tmp_path / "m").exists()


@pytest.mark.parametrize(
    ("resource", "error"),
    [(b"not a key!", NotAllowed), (jwk.JWK.generate(kty="RSA").export().encode(), Unsupported), (b"{}", Unsupported)],
)
def test_a_resource_that_is_no_symmetric_key_is_refused_and_not_told(pull, hub, model, tmp_path, resource, error):
    with pytest.raises(error) as caught:
        pull(str(model), tmp_path / "m", variables=hub.put(RESOURCE, resource))
    assert "not a key!" not in f"{caught.value}{caught.value.hint}"
    assert not (tmp_path / "m").exists()


def test_the_key_is_never_written_or_told(model, variables, tmp_path):
    secret = KEY.export(as_dict=True)["k"]
    outcome = lading("pull", model, tmp_path / "m", "--json", environ=variables)
    told = outcome.out + outcome.err + (tmp_path / "m/.lading.manifest").read_text()
    assert RESOURCE in told
    assert secret not in told


@pytest.mark.parametrize(
    ("variables", "said"),
    [
        ({"CONFIDENTIAL_ENABLED": "true"}, "CONFIDENTIAL_RESOURCE_ID is not set"),
        ({"CONFIDENTIAL_ENABLED": "maybe"}, "CONFIDENTIAL_ENABLED is 'maybe'"),
        ({"CONFIDENTIAL_RESOURCE_ID": "kbs:///a/b"}, "CONFIDENTIAL_RESOURCE_ID is"),
        ({"CONFIDENTIAL_RESOURCE_ID": "kbs:///a/../b"}, "CONFIDENTIAL_RESOURCE_ID is"),
        ({"CONFIDENTIAL_RESOURCE_ID": "kbs://host/a/b/c"}, "CONFIDENTIAL_RESOURCE_ID is"),
        ({"CONFIDENTIAL_RESOURCE_ID": "kbs:///a/b/c?d"}, "CONFIDENTIAL_RESOURCE_ID is"),
        ({"CONFIDENTIAL_RESOURCE_ID": RESOURCE, "CDH_ADDR": "127.0.0.1:8006"}, "CDH_ADDR is"),
    ],
)
def test_what_is_wrongly_configured_is_never_delivered_as_it_is(pull, model, tmp_path, variables, said):
    with pytest.raises(UsageError, match=said):
        pull(str(model), tmp_path / "m", variables={"CONFIDENTIAL_ENABLED": "1", **variables})
    assert not (tmp_path / "m").exists()


def test_without_being_asked_nothing_is_opened(pull, model, tmp_path):
    pull(str(model), tmp_path / "m", variables={"CONFIDENTIAL_ENABLED": "false", "CONFIDENTIAL_RESOURCE_ID": "no"})
    assert read_tree(tmp_path / "m") == read_tree(model)
    assert read_confidential(Variables({})) is None
    default = read_confidential(Variables({"CONFIDENTIAL_ENABLED": "true", "CONFIDENTIAL_RESOURCE_ID": RESOURCE}))
    assert default.url == "http://127.0.0.1:8006/cdh/resource/models/keys/llama-1"


def test_without_the_extra_nothing_is_delivered(model, variables, tmp_path):
    (tmp_path / "without/cryptography").mkdir(parents=True)
    (tmp_path / "without/cryptography/__init__.py").write_text("raise ImportError")
    environ = variables | {"PYTHONPATH": str(tmp_path / "without")}
    outcome = lading("init", model, tmp_path / "m", environ=environ)
    assert outcome.code == 8
    assert "the extra confidential" in outcome.err
    assert not (tmp_path / "m").exists()


def test_a_large_file_is_never_in_memory(hub, tmp_path):
    data = content(100_000) * 600
    write_model(tmp_path / "model", **{"w.jwe": seal(data, alg="dir"), "c.jwe": seal(data, enc="A256CBC-HS512")})
    environ = hub.put(RESOURCE, KEY.export().encode())
    program = (
        "import re, sys\nfrom lading.cli.main import main\n"
        "try:\n    code = main()\nexcept SystemExit as end:\n    code = end.code\n"
        "print(code, re.search(r'VmHWM:\\s*(\\d+) kB', open('/proc/self/status').read())[1])"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, "pull", tmp_path / "model", tmp_path / "m"],
        env=environ,
        capture_output=True,
        text=True,
        check=True,
        timeout=120,
    )
    code, peak_kib = map(int, done.stdout.split()[-2:])
    assert code == 0, done.stderr
    assert contents(tmp_path / "m") == {"w": data, "c": data}
    # 60 MB or 80 MB more would show.
    assert peak_kib < 75 << 10


def test_after_a_failure_half_way_the_next_attempt_begins_again_with_what_was_opened(pull, tmp_path, variables):
    files = {"a.jwe": seal(WEIGHTS), "b": seal(WEIGHTS), "c.jwe": seal(b"c", jwk.JWK.generate(kty="oct", size=256))}
    write_tree(tmp_path / "model", files)
    with pytest.raises(IntegrityError):
        pull(str(tmp_path / "model"), tmp_path / "m", variables=variables)
    write_tree(tmp_path / "model", {"c.jwe": seal(b"c")})
    pull(str(tmp_path / "model"), tmp_path / "m", variables=variables)
    assert read_tree(tmp_path / "m") == {"a": WEIGHTS, "b": WEIGHTS, "c": b"c"}


def test_what_is_opened_does_not_go_into_a_store_that_others_read(model, variables, tmp_path):
    outcome = lading("pull", model, tmp_path / "m", environ={**variables, "LADING_STORE": str(tmp_path / "store")})
    assert outcome.code == 2
    assert "an encrypted model cannot be put into a store" in outcome.err
    # It is said before anybody is asked.
    environ = {**variables, "LADING_STORE": str(tmp_path / "store")}
    assert lading("pull", tmp_path / "nowhere", tmp_path / "m", environ=environ).err == outcome.err
    assert not (tmp_path / "m").exists()
    assert not (tmp_path / "store").exists()
