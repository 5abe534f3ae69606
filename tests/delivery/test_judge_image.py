"""Images that must be signed by cosign: the signature is judged before a layer moves, whatever else lies beside the image."""

import base64
import json
from pathlib import Path

import pytest

from fakes.cosign_signer import BUNDLE, SIGNATURE, TEXT, sign_by_referrer, sign_by_tag, tag_of
from fakes.fake_oci import IMAGE_CONFIG, INDEX, MANIFEST, FakeRegistry, TokenService, digest_of, tar
from fakes.faulty_http import ALWAYS, Answer, anything, status
from fakes.oms_signer import Certified, Signer
from fakes.sigstore_services import IDENTITY, ISSUER, Sigstore
from fakes.trees import content, read_tree, whole_manifest, write_tree
from lading import events as told
from lading.delivery.judge_again import judge_again, was_judged
from lading.errors import Unavailable, Untrusted
from lading.events import ignore
from lading.model.uri import ModelURI
from lading.settings.store import StoreSettings
from lading.settings.trust import TrustRule
from lading.trust.public_key import read_public_keys
from lading.trust.sigstore import Identity

INSECURE = {"KSERVE_OCI_INSECURE_REGISTRY": "true"}
FILES = {"config.json": b"{}", "weights/a.bin": content(100_000)}
OURS, THEIRS = Signer(), Signer()
KEYS = read_public_keys(OURS.public_pem)
WAYS = {"tag": sign_by_tag, "referrer": sign_by_referrer}


@pytest.fixture
def registry(server) -> FakeRegistry:
    return FakeRegistry(server)


@pytest.fixture
def digest(registry) -> str:
    """Of the image that nobody has signed yet."""
    return registry.put_files(FILES)["digest"]


@pytest.fixture
def rule(registry) -> TrustRule:
    return TrustRule(ModelURI.parse(f"oci://{registry.host}/team"), KEYS, kind="cosign")


@pytest.fixture
def bring(registry, pull, rule, tmp_path):
    """Deliver a reference by the rule, of which keywords change fields."""

    def call(reference: str = "latest", name: str = "dest", **fields):
        settings = {key: fields.pop(key) for key in ("store", "verify") if key in fields}
        return pull(
            registry.uri(reference), tmp_path / name, variables=INSECURE, trust=(rule._replace(**fields),), **settings
        )

    return call


@pytest.fixture
def refused(registry, bring, tmp_path):
    """The error of a delivery for which no layer was read, and that left nothing."""

    def call(reference: str = "latest", **fields) -> Untrusted:
        registry.server.requests.clear()
        with pytest.raises(Untrusted) as error:
            bring(reference, **fields)
        layers = {digest_of(data) for data in FILES.values()}
        asked = [each for each in registry.server.requests if each.path.rpartition("/")[2] in layers]
        # The first byte of the largest tells whether ranges can be had.
        assert all(each.headers.get("range") == "bytes=0-0" for each in asked)
        assert read_tree(tmp_path) == {}
        assert (error.value.exit_code, error.value.code) == (6, "untrusted")
        assert error.value.hint
        return error.value

    return call


def asked_of(registry: FakeRegistry) -> list[str]:
    """What was asked of the registry, but the layers: the paths below the repository."""
    prefix = f"/v2/{registry.repository}/"
    layers = {digest_of(data) for data in FILES.values()}
    paths = [each.path for each in registry.server.requests if each.path.startswith(prefix)]
    return [path.removeprefix(prefix) for path in paths if path.rpartition("/")[2] not in layers]


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("lists", [True, False])
def test_what_is_signed_is_delivered_and_it_is_recorded_who_signed(
    registry, digest, bring, tmp_path, events, way, lists
):
    registry.lists_referrers = lists
    WAYS[way](registry, digest, OURS)
    manifest = bring()
    assert read_tree(tmp_path / "dest") == FILES
    signature = whole_manifest(tmp_path / "dest").signature
    assert signature == manifest.signature
    assert (signature.signer, signature.kind) == (f"key sha256:{KEYS[0].fingerprint}", "cosign")
    assert signature.rule == f"oci://{registry.host}/team"
    assert signature.bundle == (tag_of(digest) if way == "tag" else registry.referrers(digest)[0]["digest"])
    assert [event.signer for event in events if isinstance(event, told.Signed)] == [signature.signer]


def test_a_signature_costs_few_requests(registry, digest, bring):
    sign_by_referrer(registry, digest, OURS)
    bring(name="bundle")
    holder = registry.referrers(digest)[0]["digest"]
    assert asked_of(registry)[1:4] == [
        f"referrers/{digest}",
        f"manifests/{holder}",
        f"blobs/{json.loads(registry.manifests[holder])['layers'][0]['digest']}",
    ]
    registry.server.requests.clear()
    del registry.manifests[holder]
    registry.lists_referrers = False
    sign_by_tag(registry, digest, THEIRS, OURS)
    bring(name="tag")
    text = json.loads(registry.manifests[tag_of(digest)])["layers"][0]["digest"]
    fallback = digest.replace(":", "-")
    assert asked_of(registry)[1:] == [
        f"referrers/{digest}",
        f"manifests/{fallback}",
        f"manifests/{tag_of(digest)}",
        f"blobs/{text}",
    ]


def test_an_image_that_nobody_signed_is_refused_with_the_digest_that_is_meant(registry, digest, refused):
    error = refused()
    assert error.message == (f"oci://{registry.host}/team/model@{digest} is not signed: it has no cosign signature")
    assert "cosign sign makes, of an index for the index itself" in error.hint


def test_another_origin_is_not_signed_where_every_origin_must_be_a_signed_image(pull, rule, tmp_path):
    write_tree(tmp_path / "model", FILES)
    with pytest.raises(Untrusted, match="it has no cosign signature"):
        pull(f"file://{tmp_path}/model", tmp_path / "dest", trust=(rule._replace(prefix=None),))
    assert not (tmp_path / "dest").exists()


def test_an_unsigned_image_passes_where_the_rule_allows_that(registry, digest, bring, events):
    assert bring(unsigned="allow").signature is None
    assert [event.why for event in events if isinstance(event, told.NotTrusted)] == ["it has no cosign signature"]
    sign_by_tag(registry, digest, THEIRS)
    with pytest.raises(Untrusted, match="not signed by a key that is trusted"):
        bring(name="other", unsigned="allow")


@pytest.mark.parametrize("way", WAYS)
def test_a_signature_by_somebody_else_is_refused(registry, digest, refused, way):
    WAYS[way](registry, digest, THEIRS)
    error = refused()
    assert "is not signed by a key that is trusted" in error.message
    assert KEYS[0].fingerprint[:16] in error.hint


@pytest.mark.parametrize("way", WAYS)
def test_the_signature_of_another_image_is_refused(registry, digest, refused, way):
    """A valid one: of a bad version, say, that was signed before anybody knew."""
    other = registry.put_files({"config.json": b"[]"}, "other")["digest"]

    def of_the_other(document) -> None:
        if "critical" in document:
            document["critical"]["image"]["docker-manifest-digest"] = other
        else:
            document["subject"][0]["digest"] = {"sha256": other.removeprefix("sha256:")}

    WAYS[way](registry, digest, OURS, **{"text" if way == "tag" else "statement": of_the_other})
    assert f"is the signature of another image, {other}, and not of {digest}" in refused().message


def test_a_warning_lets_pass_what_is_not_trusted(registry, digest, bring, tmp_path, events):
    sign_by_tag(registry, digest, THEIRS)
    assert bring(mode="warn").signature is None
    assert read_tree(tmp_path / "dest") == FILES
    [event] = [event for event in events if isinstance(event, told.NotTrusted)]
    assert "not signed by a key that is trusted" in event.why


def test_layers_are_those_of_the_signed_manifest_even_without_verification(registry, digest, bring, tmp_path):
    sign_by_tag(registry, digest, OURS)
    layer = digest_of(FILES["weights/a.bin"])
    registry.blobs[layer] = registry.blobs[registry.put_blob(content(100_000, 1), "x/y")["digest"]]
    with pytest.raises(Untrusted, match="was signed"):
        bring(verify="off")
    assert read_tree(tmp_path / "dest") == {}


# ---- indexes and images ------------------------------------------------------------------------


def put_index(registry: FakeRegistry) -> tuple[str, str]:
    """An image in an index under the tag latest; returns the digests of both."""
    image = registry.put_image(tar(("models/config.json", b"{}")), tag="image")
    index = {"mediaType": INDEX, "manifests": [image | {"platform": {"os": "linux", "architecture": "amd64"}}]}
    return image["digest"], registry.put_manifest("latest", index)["digest"]


def test_of_an_index_the_index_itself_is_judged(registry, bring, refused, tmp_path):
    image, index = put_index(registry)
    sign_by_tag(registry, image, OURS)
    assert f"@{index} is not signed" in refused().message
    assert bring(f"{image}", "image").signature is not None
    sign_by_tag(registry, index, OURS)
    assert bring().signature.bundle == tag_of(index)
    assert read_tree(tmp_path / "dest") == {"config.json": b"{}"}


# ---- hostile registries ---------------------------------------------------------------------


def test_a_good_signature_counts_whatever_lies_beside_it(registry, digest, bring, tmp_path):
    sign_by_referrer(registry, digest, THEIRS)
    sign_by_referrer(registry, digest, OURS, bundle=lambda document: document.pop("dsseEnvelope"))
    sign_by_referrer(registry, digest, OURS, manifest=lambda facts: facts.update(layers="none"))
    sign_by_referrer(registry, digest, OURS, manifest=lambda facts: facts.update(layers=[{}]))
    dangling = {"mediaType": BUNDLE, "digest": digest_of(b"gone"), "size": 4}
    sign_by_referrer(registry, digest, OURS, manifest=lambda facts: facts.update(layers=[dangling]))
    huge = {"mediaType": BUNDLE, "digest": digest_of(b"huge"), "size": 1 << 30}
    sign_by_referrer(registry, digest, OURS, manifest=lambda facts: facts.update(layers=[huge]))
    lost = registry.put_referrer(digest, {"artifactType": BUNDLE, "layers": []})
    registry.manifests[lost["digest"]] = registry.manifests[lost["digest"]] + b" "
    sign_by_tag(registry, digest, THEIRS, Signer(), OURS)
    assert bring().signature.bundle == tag_of(digest)
    assert read_tree(tmp_path / "dest") == FILES


def test_every_bad_signature_has_its_reason(registry, digest, refused):
    sign_by_referrer(registry, digest, THEIRS)
    sign_by_tag(registry, digest, OURS, layer=lambda descriptor: descriptor.pop("annotations"))
    error = refused()
    assert error.message.startswith("none of 2 signatures is trusted: sha256:")
    assert "is not signed by a key that is trusted" in error.message
    assert f"{tag_of(digest)} is not a signature of an image by cosign" in error.message


def test_a_signature_that_its_registry_has_lost_or_damaged_is_refused(registry, digest, refused):
    sign_by_tag(registry, digest, OURS)
    [layer] = json.loads(registry.manifests[tag_of(digest)])["layers"]
    registry.blobs[layer["digest"]] = registry.blobs[registry.put_blob(b"other", "x/y")["digest"]]
    assert "is not what its digest says" in refused().message
    del registry.blobs[layer["digest"]]
    error = refused()
    assert "answered 404" in error.message
    assert error.hint == "sign the image again by: cosign sign"
    registry.manifests[tag_of(digest)] = json.dumps({"schemaVersion": 1, "mediaType": MANIFEST}).encode()
    assert "has no manifest of the OCI image format" in refused().message


@pytest.mark.parametrize(
    ("part", "edit"),
    [
        ("statement", lambda document: document.update(predicateType="https://slsa.dev/provenance/v1")),
        ("statement", lambda document: document.update(_type="https://in-toto.io/Statement/v0.1")),
        ("statement", lambda document: document.update(subject=[])),
        ("statement", lambda document: document.update(subject={"digest": "x"})),
        ("statement", lambda document: document["subject"][0].update(digest=["sha256"])),
        ("bundle", lambda document: document.update(mediaType="application/vnd.dev.sigstore.bundle.v0.9+json")),
        ("bundle", lambda document: document["dsseEnvelope"].update(payload="e30=")),
        ("bundle", lambda document: document["dsseEnvelope"].update(payloadType="text/plain")),
        ("bundle", lambda document: document["dsseEnvelope"].update(signatures=[])),
        ("manifest", lambda facts: facts["layers"][0].update(mediaType="text/plain")),
    ],
)
def test_a_bundle_of_another_form_is_no_signature(registry, digest, refused, part, edit):
    # Without the annotation, which would say that it is something else.
    parts = {"manifest": lambda facts: facts.pop("annotations")}
    if part == "manifest":
        parts = {"manifest": lambda facts: (facts.pop("annotations"), edit(facts))}
    sign_by_referrer(registry, digest, OURS, **(parts | ({part: edit} if part != "manifest" else {})))
    assert refused().message


@pytest.mark.parametrize(
    ("part", "edit"),
    [
        ("text", lambda document: document["critical"].update(type="atomic container signature")),
        ("text", lambda document: document["critical"].pop("image")),
        ("text", lambda document: document.update(critical=None)),
        ("layer", lambda descriptor: descriptor["annotations"].update({SIGNATURE: "?"})),
        ("layer", lambda descriptor: descriptor["annotations"].update({SIGNATURE: ""})),
        ("layer", lambda descriptor: descriptor["annotations"].update({SIGNATURE: 7})),
        ("layer", lambda descriptor: descriptor.update(mediaType="text/plain")),
    ],
)
def test_a_text_of_another_form_is_no_signature(registry, digest, refused, part, edit):
    sign_by_tag(registry, digest, OURS, **{part: edit})
    assert refused().message


def test_what_is_attested_of_an_image_does_not_sign_it(registry, digest, refused):
    """By the same key, and it may say that the image is bad; it is not even asked for."""
    sign_by_referrer(registry, digest, OURS, statement=lambda document: document.update(predicateType="https://x/vuln"))
    assert "it has no cosign signature" in refused().message
    assert f"manifests/{registry.referrers(digest)[0]['digest']}" not in asked_of(registry)


def test_a_text_that_says_two_things_is_no_signature(registry, digest, refused):
    """One reader would take the first, another one the last."""
    text = json.dumps({"critical": {"type": "x"}})[:-1] + ', "critical": '
    text += json.dumps({"type": "cosign container image signature", "image": {"docker-manifest-digest": digest}}) + "}"
    layer = registry.put_blob(text.encode(), TEXT)
    from cryptography.hazmat.primitives import hashes
    from cryptography.hazmat.primitives.asymmetric import ec

    signature = base64.b64encode(OURS.key.sign(text.encode(), ec.ECDSA(hashes.SHA256()))).decode()
    layers = [layer | {"annotations": {SIGNATURE: signature}}]
    registry.put_manifest(tag_of(digest), {"config": registry.put_blob(b"{}", IMAGE_CONFIG), "layers": layers})
    assert "is not a signature of an image by cosign" in refused().message


def test_the_repository_that_a_signature_names_is_not_judged(registry, digest, bring):
    """Images are copied with their signatures, and the newer form names none."""

    def elsewhere(document) -> None:
        document["critical"]["identity"]["docker-reference"] = "registry.example/other"

    sign_by_tag(registry, digest, OURS, text=elsewhere)
    assert bring().signature is not None


def test_a_keyless_signature_does_not_meet_a_rule_that_asks_for_a_key(registry, digest, refused):
    certificate = Certified("somebody").certificate_pem.decode()

    def keyless(descriptor) -> None:
        descriptor["annotations"]["dev.sigstore.cosign/certificate"] = certificate

    sign_by_tag(registry, digest, THEIRS, layer=keyless)
    assert "by an identity and not by a key (keyless)" in refused().message


def test_very_many_signatures_are_not_all_read(registry, digest, refused, monkeypatch):
    monkeypatch.setattr("lading.sources.oci.attachments._MOST", 3)
    for number in range(9):
        sign_by_referrer(registry, digest, THEIRS, statement=lambda document, n=number: document.update(predicate=n))
    error = refused()
    assert "none of 4 signatures is trusted" in error.message
    assert len(asked_of(registry)) < 12


def test_pages_of_referrers_that_never_end_are_left(registry, digest, refused, server):
    page = {"schemaVersion": 2, "mediaType": INDEX, "manifests": []}
    path = registry.path("referrers", digest)
    target = f"<https://elsewhere.example{path}?again>"

    def page_again(request):
        return Answer(200, {"Link": f'{target}; rel="next"'}, json.dumps(page).encode())

    server.routes = {path: page_again, **server.routes}
    assert "is not signed" in refused().message
    assert sum(request.path == path for request in server.requests) == 17


def test_of_very_many_referrers_no_further_page_is_read(registry, digest, bring, monkeypatch):
    monkeypatch.setattr("lading.sources.oci.distribution._MOST_REFERRERS", 2)
    registry.page_size = 1
    for number in range(4):
        sign_by_referrer(registry, digest, OURS, statement=lambda document, n=number: document.update(predicate=n))
    bring()
    pages = [path for path in asked_of(registry) if path.startswith("referrers/")]
    assert len(pages) == 3


def test_all_pages_of_referrers_are_read(registry, digest, bring):
    registry.page_size = 1
    for number in range(3):
        sign_by_referrer(registry, digest, THEIRS, statement=lambda document, n=number: document.update(predicate=n))
    sign_by_referrer(registry, digest, OURS)
    assert bring().signature is not None


def test_what_an_older_client_lists_without_its_type_is_looked_at(registry, digest, bring, refused):
    registry.lists_referrers = False
    attested = sign_by_referrer(registry, digest, OURS, statement=lambda document: document.update(predicateType="x"))
    untold = {"artifactType": "application/vnd.oci.empty.v1+json"}
    registry.put_manifest(digest.replace(":", "-"), {"mediaType": INDEX, "manifests": [attested | untold]})
    assert "it has no cosign signature" in refused().message
    signed = sign_by_referrer(registry, digest, OURS)
    found = {"mediaType": INDEX, "manifests": [attested | untold, signed | untold]}
    registry.put_manifest(digest.replace(":", "-"), found)
    assert bring().signature.bundle == signed["digest"]


@pytest.mark.parametrize("answer", [b"<html>", b"{}", b"[]", b'{"manifests": 7}'])
def test_a_registry_that_answers_with_a_page_to_any_address_has_no_referrers(registry, digest, bring, server, answer):
    path = registry.path("referrers", digest)
    server.routes = {path: lambda request: Answer(200, body=answer), **server.routes}
    sign_by_tag(registry, digest, OURS)
    assert bring().signature is not None


@pytest.mark.parametrize("entry", [7, {}, {"mediaType": MANIFEST, "digest": "md5:" + "0" * 32, "size": 1}])
def test_a_damaged_entry_in_the_list_of_referrers_hides_no_other(registry, digest, bring, refused, server, entry):
    listed = [entry]
    path = registry.path("referrers", digest)

    def answer(request) -> Answer:
        return Answer(200, body=json.dumps({"schemaVersion": 2, "mediaType": INDEX, "manifests": listed}).encode())

    server.routes = {path: answer, **server.routes}
    assert "is not signed" in refused().message
    sign_by_referrer(registry, digest, OURS)
    listed += registry.referrers(digest)
    assert bring().signature.bundle == listed[1]["digest"]


def test_a_registry_that_does_not_answer_is_asked_again_and_is_no_refusal(registry, digest, bring, server):
    sign_by_referrer(registry, digest, OURS)
    server.misbehave(registry.path("referrers", digest), status(503, on=anything, times=1))
    assert bring().signature is not None
    server.misbehave(registry.path("referrers", digest), status(503, on=anything, times=ALWAYS))
    with pytest.raises(Unavailable):
        bring(name="other")


def test_signatures_are_asked_for_with_the_login_of_the_image(registry, digest, pull, rule, tmp_path):
    sign_by_referrer(registry, digest, OURS)
    TokenService(registry)
    variables = INSECURE | {"OCI_USERNAME": "user", "OCI_PASSWORD": "password"}
    pull(registry.uri(), tmp_path / "dest", variables=variables, trust=(rule,))
    assert read_tree(tmp_path / "dest") == FILES


# ---- by an identity ---------------------------------------------------------------------------

SIGSTORE = Sigstore()
US = Identity(IDENTITY, ISSUER, SIGSTORE.trusted_root)


def test_an_identity_of_sigstore_signs_by_a_bundle(registry, digest, bring, tmp_path, rule):
    sign_by_referrer(registry, digest, THEIRS)
    sign_by_referrer(registry, digest, SIGSTORE.signer())
    manifest = bring(keys=(), identity=US)
    assert manifest.signature.signer == f"sigstore {IDENTITY} of {ISSUER}"
    assert read_tree(tmp_path / "dest") == FILES
    ours = rule._replace(keys=(), identity=US)
    assert judge_again(manifest, tmp_path / "dest", (ours,), ignore) == manifest.signature
    with pytest.raises(Untrusted, match="as another rule asked for"):
        judge_again(
            manifest, tmp_path / "dest", (ours._replace(identity=US._replace(name="them@example.com")),), ignore
        )


def test_another_identity_is_refused_and_so_is_the_older_form(registry, digest, refused):
    sign_by_referrer(registry, digest, SIGSTORE.signer())
    sign_by_tag(registry, digest, OURS)
    error = refused(keys=(), identity=US._replace(name="them@example.com"))
    assert "is not signed by them@example.com" in error.message
    assert "lading verifies identities of Sigstore by bundles alone" in error.message
    assert "--new-bundle-format" in error.hint


def test_an_identity_signs_one_image(registry, digest, refused):
    other = registry.put_files({"config.json": b"[]"}, "other")["digest"]

    def of_the_other(document) -> None:
        document["subject"][0]["digest"] = {"sha256": other.removeprefix("sha256:")}

    sign_by_referrer(registry, digest, SIGSTORE.signer(), statement=of_the_other)
    assert f"is the signature of another image, {other}" in refused(keys=(), identity=US).message


# ---- later ------------------------------------------------------------------------------------


def test_a_second_delivery_fetches_nothing_but_the_signature(registry, digest, bring, events):
    sign_by_tag(registry, digest, OURS)
    bring()
    registry.server.requests.clear()
    bring()
    assert any(isinstance(event, told.AlreadyDelivered) for event in events)
    with pytest.raises(Untrusted):
        bring(keys=read_public_keys(THEIRS.public_pem))


def test_an_image_of_the_store_is_judged_again_and_not_fetched_again(registry, digest, bring, tmp_path):
    store = StoreSettings(path=str(tmp_path / "store"))
    bring(name="a", store=store, prefix=ModelURI.parse("oci://elsewhere"))
    with pytest.raises(Untrusted):
        bring(name="b", store=store)
    sign_by_tag(registry, digest, OURS)
    registry.server.requests.clear()
    assert bring(name="b", store=store).signature is not None
    assert read_tree(tmp_path / "b") == FILES
    layers = [each for each in registry.server.requests if each.path.endswith(digest_of(FILES["weights/a.bin"]))]
    assert [each.headers.get("range") for each in layers] == ["bytes=0-0"]


def test_a_delivered_image_is_judged_again_by_what_was_recorded(registry, digest, bring, rule, tmp_path):
    manifest = bring(unsigned="allow")
    folder: Path = tmp_path / "dest"
    with pytest.raises(Untrusted, match="it has no cosign signature"):
        judge_again(manifest, folder, (rule,), ignore)
    sign_by_tag(registry, digest, OURS)
    manifest = bring()
    assert judge_again(manifest, folder, (rule,), ignore) == manifest.signature
    assert was_judged(manifest, (rule,))
    others = rule._replace(keys=read_public_keys(THEIRS.public_pem))
    assert not was_judged(manifest, (others,))
    with pytest.raises(Untrusted, match="as another rule asked for"):
        judge_again(manifest, folder, (others,), ignore)
    # The signature of an image is none of the files, and the other way round.
    assert not was_judged(manifest, (rule._replace(kind="oms"),))
    with pytest.raises(Untrusted, match=r"it has no model\.sig"):
        judge_again(manifest, folder, (rule._replace(kind="oms"),), ignore)
