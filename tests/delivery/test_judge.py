"""Signature first: what the right people signed is delivered, anything else is refused before its weights are read."""

import hashlib
import json
from pathlib import Path

import pytest

from fakes.fake_kubeflow import FakeKubeflow
from fakes.fake_source import FakeSource
from fakes.faulty_http import ALWAYS, ANYWHERE, anything, status
from fakes.oms_signer import Certified, Signer
from fakes.registry_entries import registry_entry
from fakes.sigstore_services import IDENTITY, ISSUER, Sigstore
from fakes.trees import content, read_tree, whole_manifest, write_tree
from lading import events as told
from lading.delivery.judge_again import judge_again, was_judged
from lading.destination.audit import audit
from lading.destination.workspace import read_manifest
from lading.errors import IntegrityError, Unavailable, Untrusted
from lading.events import ignore
from lading.model.digest import Digest
from lading.model.manifest import File, Manifest
from lading.model.uri import ModelURI
from lading.settings.families import SCHEMES
from lading.settings.store import StoreSettings
from lading.settings.trust import TrustRule
from lading.trust import bundle as bundles
from lading.trust.certificate import read_roots
from lading.trust.public_key import read_public_keys
from lading.trust.sigstore import Identity

BIG = content(600_000)
MODEL = {"config.json": b"{}", "weights/big.bin": BIG, "weights/empty": b""}
OURS, THEIRS = Signer(), Signer("P-384")
KEYS = read_public_keys(OURS.public_pem)
RULE = TrustRule(ModelURI.parse("fake:///model"), KEYS)
RANGE_BYTES = 256 * 1024


@pytest.fixture
def origin(monkeypatch) -> dict[str, bytes]:
    """The files of fake:///model, signed by us, which a test may change."""
    files = MODEL | {"model.sig": OURS.sign(MODEL)}
    monkeypatch.setitem(SCHEMES, "fake", "fakes.fake_source:FakeSource")
    monkeypatch.setattr(FakeSource, "models", {"model": files})
    monkeypatch.setattr(FakeSource, "declared", {})
    monkeypatch.setattr(FakeSource, "reads", [])
    return files


@pytest.fixture
def pull_by(pull, tmp_path):
    """Deliver fake:///model by one rule, whose fields are keywords."""

    def call(rule: TrustRule = RULE, name: str = "dest", **settings):
        return pull("fake:///model", tmp_path / name, range_bytes=RANGE_BYTES, trust=(rule,), **settings)

    return call


def refused(pull_by, tmp_path: Path, rule: TrustRule = RULE, **settings) -> Untrusted:
    """The error of a delivery that nothing of the model was read for, and that left nothing."""
    FakeSource.reads.clear()
    with pytest.raises(Untrusted) as error:
        pull_by(rule, **settings)
    assert {path for path, _, _ in FakeSource.reads} <= {rule.bundle}
    assert read_tree(tmp_path) == {}
    assert (error.value.exit_code, error.value.code) == (6, "untrusted")
    assert error.value.hint
    return error.value


def test_what_is_signed_is_delivered_and_it_is_recorded_who_signed(origin, pull_by, tmp_path, events):
    manifest = pull_by()
    assert read_tree(tmp_path / "dest") == origin
    signature = whole_manifest(tmp_path / "dest").signature
    assert signature == manifest.signature
    assert signature.signer == f"key sha256:{KEYS[0].fingerprint}"
    assert (signature.rule, signature.bundle) == ("fake:///model", "model.sig")
    [event] = [event for event in events if isinstance(event, told.Signed)]
    assert (event.signer, event.rule) == (signature.signer, "fake:///model")
    assert not any(isinstance(event, told.Unverified) for event in events)


def test_no_byte_is_read_twice(origin, pull_by):
    pull_by()
    spans = [(path, start) for path, start, _ in FakeSource.reads]
    assert len(spans) == len(set(spans))
    assert sum(end - start for _, start, end in FakeSource.reads) == sum(map(len, origin.values()))


@pytest.mark.parametrize(
    ("shard_bytes", "hash_type"),
    [(0, "blake2b"), (100_000, "sha256"), (1_000_000, "sha256"), (7, "blake2b"), (7, "blake3")],
)
def test_each_way_of_signing_is_verified_and_is_known_again(origin, pull_by, tmp_path, events, shard_bytes, hash_type):
    files = {"config.json": b"{}", "weights/big.bin": BIG[: 1000 if shard_bytes == 7 else None]}
    origin.clear()
    origin.update(files, **{"model.sig": OURS.sign(files, shard_bytes=shard_bytes, hash_type=hash_type)})
    pull_by()
    FakeSource.reads.clear()
    pull_by()
    assert {path for path, _, _ in FakeSource.reads} == {"model.sig"}
    assert any(isinstance(event, told.AlreadyDelivered) for event in events)
    origin["config.json"] = b"[]"
    with pytest.raises(Untrusted, match="was signed"):
        pull_by(name="other")
    manifest = whole_manifest(tmp_path / "dest")
    assert judge_again(manifest, tmp_path / "dest", (RULE,), ignore) == manifest.signature


def test_a_shard_that_was_changed_is_refused(origin, pull_by, tmp_path):
    del origin["weights/empty"]
    origin["model.sig"] = OURS.sign(MODEL, shard_bytes=100_000)
    origin["weights/big.bin"] = BIG[:-1] + b"x"
    with pytest.raises(Untrusted, match=r"weights/big\.bin has .* was signed"):
        pull_by()
    assert read_tree(tmp_path / "dest") == {}


def test_an_empty_file_passes_a_signature_that_cannot_name_it(origin, pull_by, tmp_path):
    origin["model.sig"] = OURS.sign(MODEL, shard_bytes=100_000)
    pull_by()
    assert read_tree(tmp_path / "dest") == origin


@pytest.mark.parametrize("declared", [True, False])
def test_a_changed_file_is_refused_before_it_is_read_if_its_origin_tells_a_digest(
    origin, pull_by, tmp_path, monkeypatch, declared
):
    if declared:
        digest = Digest("sha256", hashlib.sha256(BIG[::-1]).hexdigest())
        monkeypatch.setattr(FakeSource, "declared", {"weights/big.bin": (digest,)})
        origin["weights/big.bin"] = BIG[::-1]
        assert "changed weights/big.bin" in refused(pull_by, tmp_path).message
        return
    origin["weights/big.bin"] = BIG[::-1]
    with pytest.raises(Untrusted, match=r"weights/big\.bin has .* was signed") as error:
        pull_by()
    assert "replaced after it was signed" in error.value.hint
    assert read_tree(tmp_path / "dest") == {}


def test_a_model_without_a_signature_is_refused(origin, pull_by, tmp_path):
    del origin["model.sig"]
    error = refused(pull_by, tmp_path)
    assert error.message == "fake:///model is not signed: it has no model.sig"
    assert "the rule for fake:///model asks for a signature" in error.hint


def test_a_model_without_a_signature_passes_a_rule_that_allows_it(origin, pull_by, tmp_path, events):
    del origin["model.sig"]
    rule = RULE._replace(unsigned="allow")
    assert pull_by(rule).signature is None
    assert read_tree(tmp_path / "dest") == MODEL
    assert [event.why for event in events if isinstance(event, told.NotTrusted)] == ["it has no model.sig"]
    origin["model.sig"] = THEIRS.sign(MODEL)
    with pytest.raises(Untrusted, match="not signed by a key that is trusted"):
        pull_by(rule, "other")


def test_a_signature_by_somebody_else_is_refused(origin, pull_by, tmp_path):
    origin["model.sig"] = THEIRS.sign(MODEL)
    assert "not signed by a key that is trusted" in refused(pull_by, tmp_path).message


def test_one_of_several_keys_suffices(origin, pull_by, tmp_path):
    both = read_public_keys(THEIRS.public_pem + OURS.public_pem)
    assert pull_by(RULE._replace(keys=both)).signature.signer.endswith(KEYS[0].fingerprint)
    origin["model.sig"] = THEIRS.sign(MODEL)
    assert pull_by(RULE._replace(keys=both)).signature.signer.endswith(both[0].fingerprint)


def test_a_valid_signature_of_another_model_is_refused_and_every_file_is_named(origin, pull_by, tmp_path):
    origin["model.sig"] = OURS.sign({"config.json": b"{}", "other.bin": b"x"})
    error = refused(pull_by, tmp_path)
    assert error.message == (
        "not what was signed in model.sig: missing other.bin; extra weights/big.bin; extra weights/empty"
    )
    assert "another model or version" in error.hint


def test_a_signature_that_names_itself_is_not_of_what_is_there(origin, pull_by, tmp_path):
    """No file can have its own digest in it: an older signature was signed with the model."""
    origin["model.sig"] = OURS.sign(MODEL | {"model.sig": b"the one before"})
    assert refused(pull_by, tmp_path).message == "not what was signed in model.sig: changed model.sig"


def test_a_file_that_was_not_signed_is_refused_or_left_out(origin, pull_by, tmp_path):
    origin["evil.pkl"] = b"evil"
    error = refused(pull_by, tmp_path)
    assert "extra evil.pkl" in error.message
    assert "extra_files: skip" in error.hint
    pull_by(RULE._replace(extra_files="skip"))
    assert read_tree(tmp_path / "dest") == MODEL | {"model.sig": origin["model.sig"]}


def test_what_the_signer_left_out_is_not_delivered(origin, pull_by, tmp_path):
    origin |= {".gitattributes": b"*", ".git/hooks/evil": b"evil", "notes/a.txt": b"a"}
    origin["model.sig"] = OURS.sign(MODEL, ignore_paths=["notes"])
    pull_by()
    assert read_tree(tmp_path / "dest") == MODEL | {"model.sig": origin["model.sig"]}


def test_many_wrong_files_are_counted(origin, pull_by, tmp_path):
    origin |= {f"extra-{number:02}": b"x" for number in range(40)}
    message = refused(pull_by, tmp_path).message
    assert message.endswith("extra extra-09; and 30 more")


def test_patterns_choose_among_signed_files_and_the_signature_comes_along(origin, pull_by, tmp_path):
    pull_by(allow=("*.json",))
    assert read_tree(tmp_path / "dest") == {"config.json": b"{}", "model.sig": origin["model.sig"]}
    manifest = whole_manifest(tmp_path / "dest")
    assert judge_again(manifest, tmp_path / "dest", (RULE,), ignore) == manifest.signature
    # What is not wanted may be missing, or be extra.
    origin["evil.pkl"] = b"evil"
    del origin["weights/empty"]
    pull_by(name="other", allow=("*.json",))
    refused(pull_by, tmp_path / "third", name="third/x", allow=("*.json", "*.pkl"))


def test_nothing_of_what_is_wanted_was_signed(origin, pull_by, tmp_path):
    origin["notes.md"] = b"hello"
    error = refused(pull_by, tmp_path, RULE._replace(extra_files="skip"), allow=("*.md",))
    assert "none of the files is signed" in error.message


@pytest.mark.parametrize("name", ["../evil", "/etc/passwd", ".lading.manifest"])
def test_a_signature_that_names_places_outside_the_model_is_refused(origin, pull_by, tmp_path, name):
    origin["model.sig"] = OURS.sign(MODEL | {name: b"evil"})
    assert "cannot be used" in refused(pull_by, tmp_path).message


def test_a_huge_signature_is_not_read(origin, pull_by, tmp_path, monkeypatch):
    monkeypatch.setattr("lading.delivery.judge.MOST_BUNDLE_BYTES", 1000)
    assert "has more than" in refused(pull_by, tmp_path).message
    assert FakeSource.reads == []


def test_a_signature_whose_size_is_not_told_is_read_up_to_a_bound(origin, pull_by, tmp_path, monkeypatch):
    monkeypatch.setattr("lading.delivery.judge.MOST_BUNDLE_BYTES", 1000)
    real = FakeSource.list

    def without_sizes(self):
        listed = real(self)
        return listed._replace(files=tuple(file._replace(size_bytes=None) for file in listed.files))

    monkeypatch.setattr(FakeSource, "list", without_sizes)
    monkeypatch.setattr(
        FakeSource, "read", lambda self, file, span, sink: sink.write(memoryview(self.models["model"][file.path]))
    )
    with pytest.raises(Untrusted, match="has more than"):
        pull_by()


def test_the_bound_holds_a_model_of_a_hundred_thousand_files() -> None:
    files = {f"shard-{number:06}/model-{number:06}-of-100000.safetensors": b"" for number in range(1000)}
    assert 100 * len(OURS.sign(files)) < bundles.MOST_BUNDLE_BYTES


def test_an_empty_signature_is_none(origin, pull_by, tmp_path):
    origin["model.sig"] = b""
    assert "not a signature by OMS" in refused(pull_by, tmp_path).message


def test_a_signature_in_another_place_is_found(origin, pull_by, tmp_path):
    origin["signatures/a.sig"] = origin.pop("model.sig")
    rule = RULE._replace(bundle="signatures/a.sig")
    assert pull_by(rule).signature.bundle == "signatures/a.sig"


def test_a_read_of_the_signature_that_fails_is_repeated(origin, pull_by, tmp_path, monkeypatch):
    failures = [Unavailable("reset"), Unavailable("reset")]

    def fail(path: str) -> None:
        if path == "model.sig" and failures:
            raise failures.pop()

    monkeypatch.setattr(FakeSource, "on_read", staticmethod(fail))
    pull_by()
    assert not failures


def test_a_rule_that_warns_lets_pass_what_is_not_trusted_and_says_so(origin, pull_by, tmp_path, events):
    origin["evil.pkl"] = b"evil"
    origin["model.sig"] = THEIRS.sign(MODEL)
    assert pull_by(RULE._replace(mode="warn")).signature is None
    assert read_tree(tmp_path / "dest") == origin
    [event] = [event for event in events if isinstance(event, told.NotTrusted)]
    assert "not signed by a key that is trusted" in event.why


def test_a_rule_that_warns_still_refuses_bytes_that_are_not_those_that_were_signed(origin, pull_by, tmp_path):
    origin["weights/big.bin"] = BIG[::-1]
    with pytest.raises(Untrusted, match="was signed"):
        pull_by(RULE._replace(mode="warn"))
    assert read_tree(tmp_path / "dest") == {}


def test_another_origin_is_not_judged(origin, pull_by, tmp_path):
    origin["model.sig"] = THEIRS.sign(MODEL)
    assert pull_by(RULE._replace(prefix=ModelURI.parse("fake:///other"))).signature is None


def test_a_model_in_place_is_judged_by_a_rule_that_came_later(origin, pull_by, tmp_path, events):
    signed = origin["model.sig"]
    pull_by(RULE._replace(prefix=ModelURI.parse("fake:///other")))
    assert pull_by().signature is not None
    assert whole_manifest(tmp_path / "dest").signature is not None
    # And of one that was there before, nothing is fetched for another rule.
    FakeSource.reads.clear()
    shown = RULE._replace(prefix=None)
    assert pull_by(shown).signature.rule == ""
    assert {path for path, _, _ in FakeSource.reads} == {"model.sig"}
    origin["model.sig"] = THEIRS.sign(MODEL)
    with pytest.raises(Untrusted):
        pull_by()
    assert read_tree(tmp_path / "dest") == MODEL | {"model.sig": signed}


def test_what_a_registry_vouches_for_narrows_and_does_not_widen(origin, pull, tmp_path):
    def pull_with(path: str, digest: str):
        catalog = tmp_path / "catalog.json"
        models = {"iris": {"versions": {"v1": {"uri": "fake:///model", "digests": {path: digest}}}}}
        catalog.write_text(json.dumps({"models": models}))
        entry = registry_entry("catalog", "catalog", path=str(catalog))
        return pull("model-registry://iris", tmp_path / "dest", trust=(RULE,), registries=(entry,))

    with pytest.raises(IntegrityError):
        pull_with("config.json", "sha256:" + "0" * 64)
    origin["weights/big.bin"] = BIG[::-1]
    with pytest.raises(IntegrityError, match="is expected"):
        pull_with("weights/big.bin", "sha256:" + hashlib.sha256(BIG[::-1]).hexdigest())
    assert read_tree(tmp_path / "dest") == {}


# ---- by a certificate ---------------------------------------------------------------------------

AUTHORITY = Certified("authority", authority=True)
BY_ROOT = RULE._replace(keys=(), roots=read_roots(AUTHORITY.certificate_pem))


def test_a_certificate_below_a_root_of_the_rule_signs(origin, pull_by, tmp_path):
    origin["model.sig"] = Certified("us", AUTHORITY).sign_certified(MODEL)
    manifest = pull_by(BY_ROOT)
    assert manifest.signature.signer.startswith("certificate CN=us sha256:")
    assert read_tree(tmp_path / "dest") == origin
    assert again(tmp_path / "dest", BY_ROOT) == manifest.signature
    # Certificates expire: what is in place is looked at again in each cycle of an agent.
    assert was_judged(manifest, (RULE._replace(prefix=ModelURI.parse("fake:///other")),))
    assert not was_judged(manifest, (BY_ROOT,))


def test_a_certificate_that_has_expired_signs_no_more(origin, pull_by, tmp_path):
    origin["model.sig"] = Certified("us", AUTHORITY, days=(-30, -1)).sign_certified(MODEL)
    assert "CN=us has expired on" in refused(pull_by, tmp_path, BY_ROOT).hint


def test_the_method_of_the_rule_counts_whoever_signed(origin, pull_by, tmp_path):
    assert "by the method key, and the rule for fake:///model asks for the method certificate" in (
        refused(pull_by, tmp_path, BY_ROOT).message
    )
    signer = Certified("us", AUTHORITY)
    origin["model.sig"] = signer.sign_certified(MODEL)
    rule = RULE._replace(keys=read_public_keys(signer.public_pem))
    assert "by the method certificate" in refused(pull_by, tmp_path, rule).message


SERVICES = Sigstore()
BY_IDENTITY = RULE._replace(keys=(), identity=Identity(IDENTITY, ISSUER, SERVICES.trusted_root))


def test_an_identity_of_the_rule_signs(origin, pull_by, tmp_path):
    assert "by the method key, and the rule" in refused(pull_by, tmp_path, BY_IDENTITY).message
    origin["model.sig"] = SERVICES.signer().sign_logged(MODEL)
    manifest = pull_by(BY_IDENTITY)
    assert manifest.signature.signer == f"sigstore {IDENTITY} of {ISSUER}"
    assert read_tree(tmp_path / "dest") == origin
    assert again(tmp_path / "dest", BY_IDENTITY) == manifest.signature
    assert not was_judged(manifest, (BY_IDENTITY,))


def test_an_identity_that_is_not_of_the_rule_signs_nothing(origin, pull_by, tmp_path):
    origin["model.sig"] = SERVICES.signer(identity="other@example.com").sign_logged(MODEL)
    assert "other@example.com" in refused(pull_by, tmp_path, BY_IDENTITY).hint
    origin["model.sig"] = Sigstore().signer().sign_logged(MODEL)
    assert f"is not signed by {IDENTITY} of {ISSUER}" in refused(pull_by, tmp_path, BY_IDENTITY).message


# ---- with a store -----------------------------------------------------------------------------


def test_a_model_of_the_store_is_judged_by_the_rule_of_today_and_not_fetched_again(origin, pull_by, tmp_path):
    store = StoreSettings(path=str(tmp_path / "store"))
    nobody = RULE._replace(prefix=ModelURI.parse("fake:///other"))
    pull_by(nobody, "a", store=store)
    FakeSource.reads.clear()
    assert pull_by(RULE, "b", store=store).signature is not None
    assert {path for path, _, _ in FakeSource.reads} == {"model.sig"}
    assert read_tree(tmp_path / "b") == origin
    with pytest.raises(Untrusted):
        pull_by(RULE._replace(keys=read_public_keys(THEIRS.public_pem)), "c", store=store)
    assert not (tmp_path / "c").exists()


def test_what_the_store_has_and_nobody_signed_stays_there(origin, pull_by, tmp_path):
    store = StoreSettings(path=str(tmp_path / "store"))
    origin["weights/big.bin"] = BIG[::-1]
    pull_by(RULE._replace(prefix=ModelURI.parse("fake:///other")), "a", store=store)
    with pytest.raises(Untrusted):
        pull_by(RULE, "b", store=store)
    assert read_tree(tmp_path / "b") == {}


# ---- again, without the origin -------------------------------------------------------------------


@pytest.fixture
def delivered(origin, pull_by, tmp_path) -> Path:
    pull_by()
    return tmp_path / "dest"


def again(folder: Path, rule: TrustRule = RULE):
    manifest = read_manifest(folder / ".lading.manifest")
    assert manifest is not None
    return judge_again(manifest, folder, (rule,), ignore)


def test_a_delivered_model_is_judged_again_without_its_origin(delivered, monkeypatch):
    FakeSource.models.clear()
    assert again(delivered).signer.endswith(KEYS[0].fingerprint)
    with pytest.raises(Untrusted, match="not signed by a key that is trusted"):
        again(delivered, RULE._replace(keys=read_public_keys(THEIRS.public_pem)))
    assert again(delivered, RULE._replace(prefix=ModelURI.parse("fake:///other"))) is None
    assert again(delivered, RULE._replace(mode="warn", keys=read_public_keys(THEIRS.public_pem))) is None


def edit_manifest(folder: Path, edit) -> None:
    place = folder / ".lading.manifest"
    document = json.loads(place.read_text())
    edit(document)
    document["digest"] = str(Manifest(tuple(map(File.from_json, document["files"]))).digest)
    place.write_text(json.dumps(document))


def rewrite(folder: Path, edit) -> None:
    edit_manifest(folder, lambda document: edit(document["files"]))


def test_a_manifest_that_says_otherwise_changes_nothing(delivered):
    """Whoever can write the folder can write the manifest, but not the signature."""
    (delivered / "weights/big.bin").write_bytes(BIG[::-1])

    def forget(files):
        for file in files:
            file["verified"] = []

    rewrite(delivered, forget)
    with pytest.raises(Untrusted, match=r"changed weights/big\.bin"):
        again(delivered)


def test_a_manifest_that_says_that_the_signed_digest_was_checked_changes_nothing(delivered):
    """Not beside a stronger digest, which is the one that an audit computes."""
    evil = BIG[::-1]
    (delivered / "weights/big.bin").write_bytes(evil)

    def lie(files):
        big = next(file for file in files if file["path"] == "weights/big.bin")
        big["digest"] = f"sha512:{hashlib.sha512(evil).hexdigest()}"
        assert f"sha256:{hashlib.sha256(BIG).hexdigest()}" in big["verified"]

    rewrite(delivered, lie)
    assert audit(delivered).is_clean
    with pytest.raises(Untrusted, match=r"changed weights/big\.bin"):
        again(delivered)


def test_a_manifest_without_an_origin_is_judged_by_the_rule_for_every_origin(delivered):
    edit_manifest(delivered, lambda document: document.update(resolved=""))
    everywhere = RULE._replace(prefix=None)
    assert again(delivered, everywhere) is not None
    (delivered / "weights/big.bin").write_bytes(BIG[::-1])
    edit_manifest(delivered, lambda document: [file.update(verified=[]) for file in document["files"]])
    with pytest.raises(Untrusted, match=r"changed weights/big\.bin"):
        again(delivered, everywhere)
    assert not was_judged(read_manifest(delivered / ".lading.manifest")._replace(signature=None), (everywhere,))
    assert again(delivered, everywhere._replace(mode="off")) is None


def test_a_file_that_was_put_into_the_manifest_is_not_signed(delivered):
    (delivered / "evil.pkl").write_bytes(b"evil")
    rewrite(delivered, lambda files: files.insert(1, {**files[0], "path": "evil.pkl"}))
    with pytest.raises(Untrusted, match=r"extra evil\.pkl"):
        again(delivered)


def test_a_file_that_was_taken_out_of_the_manifest_is_missing(delivered):
    rewrite(delivered, lambda files: files.remove(next(file for file in files if file["path"] == "config.json")))
    with pytest.raises(Untrusted, match=r"missing config\.json"):
        again(delivered)


def test_a_model_that_was_delivered_before_there_was_a_rule_is_hashed(origin, pull_by, tmp_path):
    pull_by(RULE._replace(prefix=ModelURI.parse("fake:///other")))
    assert again(tmp_path / "dest") is not None
    (tmp_path / "dest/weights/big.bin").write_bytes(BIG[::-1])
    with pytest.raises(Untrusted, match=r"changed weights/big\.bin"):
        again(tmp_path / "dest")


def test_a_delivered_model_without_a_signature_is_not_signed(origin, pull_by, tmp_path):
    del origin["model.sig"]
    pull_by(RULE._replace(prefix=ModelURI.parse("fake:///other")))
    with pytest.raises(Untrusted, match="is not signed"):
        again(tmp_path / "dest")
    assert again(tmp_path / "dest", RULE._replace(unsigned="allow")) is None


@pytest.mark.parametrize("stored", [True, False])
def test_what_was_last_known_is_judged_by_the_rule_of_today(server, pull, tmp_path, stored):
    registry = FakeKubeflow(server)
    files = write_tree(tmp_path / "origin", MODEL | {"model.sig": OURS.sign(MODEL)})
    registry.register("iris", "v1", f"file://{files}")
    entry = registry_entry("kf", "kubeflow", url=registry.url, folders=(str(tmp_path),))
    rule = RULE._replace(prefix=ModelURI.parse(f"file://{files}"))
    settings = {"registries": (entry,), "offline": "last-known"}
    if stored:
        settings["store"] = StoreSettings(path=str(tmp_path / "store"))

    def call(rule: TrustRule):
        return pull("model-registry://iris", tmp_path / "dest", trust=(rule,), **settings)

    assert call(rule).signature is not None
    server.misbehave(ANYWHERE, status(503, on=anything, times=ALWAYS))
    assert call(rule).signature is not None
    with pytest.raises(Untrusted):
        call(rule._replace(keys=read_public_keys(THEIRS.public_pem)))


def test_a_manifest_that_says_that_it_came_out_of_an_archive_proves_nothing(delivered):
    """Else whoever can write the folder could say so of any model."""
    (delivered / "weights/big.bin").write_bytes(BIG[::-1])

    def claim(document):
        document["archives"] = document["files"]
        document["files"] = [{**file, "validator": None} for file in document["files"]]

    edit_manifest(delivered, claim)
    with pytest.raises(Untrusted, match="unpacked or decrypted"):
        again(delivered)


def test_all_files_that_were_changed_are_named_at_once(origin, pull_by, tmp_path):
    origin["weights/big.bin"], origin["config.json"] = BIG[::-1], b"[]"
    with pytest.raises(Untrusted) as error:
        pull_by()
    assert (error.value.code, error.value.exit_code) == ("untrusted", 6)
    assert "config.json" in error.value.message
    assert "weights/big.bin" in error.value.message
    assert read_tree(tmp_path / "dest") == {}
