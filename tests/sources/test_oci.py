"""Images and artifacts of OCI registries become models."""

import json
import os
import tarfile
from urllib.parse import parse_qs

import pytest
from backports import zstd

from fakes.certificates import Authority
from fakes.fake_oci import (
    IMAGE_CONFIG,
    INDEX,
    LAYER,
    MANIFEST,
    TITLE,
    FakeRegistry,
    TokenService,
    basic_only,
    digest_of,
    gzipped,
    tar,
)
from fakes.faulty_http import (
    ALWAYS,
    Answer,
    Fault,
    FaultyServer,
    Request,
    anything,
    cut,
    probes,
    redirect,
    status,
    wrong_byte,
)
from fakes.trees import MIB, content, read_tree, whole_manifest
from lading.delivery.request import Request as Asked
from lading.delivery.resolve import find
from lading.errors import IntegrityError, NotAllowed, NotFound, Unavailable, Unsupported, UsageError
from lading.events import OfAnotherMachine
from lading.model.digest import Digest
from lading.settings.limits import Limits, Network

INSECURE = {"KSERVE_OCI_INSECURE_REGISTRY": "true"}
MACHINE = {"x86_64": "amd64", "aarch64": "arm64"}[os.uname().machine]
FILES = {"config.json": b"{}", "weights/a.bin": content(MIB)}


@pytest.fixture
def registry(server):
    return FakeRegistry(server)


@pytest.fixture
def bring(registry, pull, tmp_path):
    """Deliver a reference of the registry; returns the tree and the manifest."""

    def call(reference="latest", *, variables=None, scheme="oci", **settings):
        uri = registry.uri(reference, scheme)
        manifest = pull(uri, tmp_path / "model", variables=INSECURE | (variables or {}), **settings)
        assert whole_manifest(tmp_path / "model").digest == manifest.digest
        return read_tree(tmp_path / "model"), manifest

    return call


def refused(bring, kind, *words, **how):
    """The error of a delivery that must leave nothing."""
    with pytest.raises(kind) as caught:
        bring(**how)
    for word in words:
        assert word in f"{caught.value.message} {caught.value.hint}"
    return caught.value


def untouched(folder):
    """Nothing was delivered: what has landed is in the workspace."""
    assert [path for path in read_tree(folder) if not path.startswith("model/.lading/")] == []


# What modelcars hold.

ROOT_FORMS = ["models/", "./models/", "/models/", ".//models/"]


@pytest.mark.parametrize("root", ROOT_FORMS)
def test_a_modelcar_is_what_lies_below_models(registry, bring, root):
    base = tar(("etc/passwd", b"root"), ("bin/sh", b"#!"), ("models.txt", b""), ("mymodels/x", b""))
    own = tar((root, "/"), (f"{root}config.json", b"{}"), (f"{root}weights/a.bin", b"a"))
    descriptor = registry.put_image(base, own)
    tree, manifest = bring()
    assert tree == {"config.json": b"{}", "weights/a.bin": b"a"}
    assert manifest.resolved == registry.uri(descriptor["digest"])
    assert [archive.verified for archive in manifest.archives] == [
        (Digest.parse(digest_of(layer)),) for layer in (base, own)
    ]


@pytest.mark.parametrize(
    ("media_type", "pack"),
    [
        (LAYER, bytes),
        (f"{LAYER}+gzip", gzipped),
        (f"{LAYER}+zstd", zstd.compress),
        # As pzstd writes it, and some of those who write zstd:chunked: a frame to skip comes first.
        (f"{LAYER}+zstd", lambda data: b"\x50\x2a\x4d\x18\4\0\0\0size" + zstd.compress(data)),
        ("application/vnd.docker.image.rootfs.diff.tar.gzip", gzipped),
        ("application/vnd.docker.image.rootfs.diff.tar", bytes),
        ("application/vnd.oci.image.layer.nondistributable.v1.tar+gzip", gzipped),
    ],
)
def test_layers_come_in_every_packing(registry, bring, media_type, pack):
    layer = registry.put_blob(pack(tar(("models/a", b"a"))), media_type)
    registry.put_manifest("latest", {"config": registry.put_blob(b"{}", IMAGE_CONFIG), "layers": [layer]})
    assert bring()[0] == {"a": b"a"}


LAYERED = {
    "a later layer replaces": ([("models/a", b"1"), ("models/b", b"b")], [("models/a", b"2")], {"a": b"2", "b": b"b"}),
    "a whiteout hides a file": ([("models/a", b""), ("models/b", b"")], [("models/.wh.a", b"")], {"b": b""}),
    "a whiteout hides a folder": ([("models/d/a", b""), ("models/b", b"")], [("models/.wh.d", b"")], {"b": b""}),
    "a whiteout is no prefix": ([("models/da", b""), ("models/d", b"")], [("models/.wh.d", b"")], {"da": b""}),
    "a whiteout hides only what was before": (
        [("models/d/a", b"")],
        [("models/d/b", b""), ("models/.wh.d", b"")],
        {"d/b": b""},
    ),
    "an opaque folder hides what was in it": (
        [("models/d/a", b""), ("models/b", b"")],
        [("models/d/c", b""), ("models/d/.wh..wh..opq", b"")],
        {"b": b"", "d/c": b""},
    ),
    "the whole folder may be hidden": ([("models/a", b"")], [(".wh.models", b""), ("models/b", b"")], {"b": b""}),
    "the root may be opaque": ([("models/a", b"")], [(".wh..wh..opq", b""), ("models/b", b"")], {"b": b""}),
    "whiteouts elsewhere say nothing": ([("models/a", b"")], [("etc/.wh.a", b""), (".wh.a", b"")], {"a": b""}),
    "notes of aufs are no files": ([("models/a", b"")], [("models/.wh..wh.plnk", b"")], {"a": b""}),
    "a file replaces a folder": ([("models/d/a", b"")], [("models/d", b"file")], {"d": b"file"}),
    "a folder replaces a file": ([("models/d", b"file")], [("models/d/a", b"")], {"d/a": b""}),
    "an empty folder replaces a file": ([("models/d", b""), ("models/a", b"")], [("models/d", "/")], {"a": b""}),
    "a hard link within a layer": ([("models/a", b"a"), ("models/b", "= models/a")], [], {"a": b"a", "b": b"a"}),
    "a hard link from the root": ([("models/a", b"a"), ("models/b", "= /models/a")], [], {"a": b"a", "b": b"a"}),
    "a hard link to a layer before": ([("models/a", b"a")], [("models/b", "= models/a")], {"a": b"a", "b": b"a"}),
    "a hard link keeps what it meant": (
        [("models/a", b"1"), ("models/b", "= models/a")],
        [("models/a", b"2")],
        {"a": b"2", "b": b"1"},
    ),
    "a hard link outlives its target": (
        [("models/a", b"1"), ("models/b", "= models/a")],
        [("models/.wh.a", b"")],
        {"b": b"1"},
    ),
    "a symbolic link": ([("models/x.gguf", b"x"), ("models/model.file", "-> x.gguf")], [], None),
    "an absolute link within": ([("models/x.gguf", b"x"), ("models/model.file", "-> /models/x.gguf")], [], None),
    "a link through the root": ([("models/x.gguf", b"x"), ("models/model.file", "-> ../models/x.gguf")], [], None),
    "a link to a later layer": ([("models/model.file", "-> x.gguf")], [("models/x.gguf", b"x")], None),
    "a link means what is there in the end": (
        [("models/a", b"1"), ("models/l", "-> a")],
        [("models/a", b"2")],
        {"a": b"2", "l": b"2"},
    ),
    "a link replaces a file": (
        [("models/a", b"a"), ("models/l", b"file")],
        [("models/l", "-> a")],
        {"a": b"a", "l": b"a"},
    ),
    "a file replaces a link": (
        [("models/a", b"a"), ("models/l", "-> a")],
        [("models/l", b"file")],
        {"a": b"a", "l": b"file"},
    ),
    "a link is hidden": ([("models/a", b"a"), ("models/l", "-> a")], [("models/.wh.l", b"")], {"a": b"a"}),
    "a link to a folder": (
        [("models/v1/a", b"a"), ("models/current", "-> v1")],
        [],
        {"v1/a": b"a", "current/a": b"a"},
    ),
    "a member of the same name": ([("models/a", b"1"), ("models/a", b"2")], [], {"a": b"2"}),
    "names that differ by case": ([("models/A", b"1"), ("models/a", b"2")], [], {"A": b"1", "a": b"2"}),
    "an escape elsewhere is not looked at": ([("../../etc/x", b""), ("models/a", b"a")], [], {"a": b"a"}),
}


@pytest.mark.parametrize(("below", "above", "expected"), LAYERED.values(), ids=LAYERED)
def test_layers_are_laid_on_each_other(registry, bring, below, above, expected):
    registry.put_image(*(tar(*members) for members in (below, above) if members))
    tree, _ = bring()
    assert tree == (expected or {"x.gguf": b"x", "model.file": b"x"})


REFUSED_LAYERS = {
    "an escape": ([("models/../../etc/x", b"")], "which"),
    "a climbing name": ([("models/a/../../../x", b"")], "holds"),
    "a link to outside": ([("models/a", b""), ("models/l", "-> /etc/passwd")], "leads out"),
    "a relative link to outside": ([("models/a", b""), ("models/l", "-> ../etc/passwd")], "leads out"),
    "a link to everything": ([("models/a", b""), ("models/l", "-> /models")], "itself"),
    "a hard link to outside": ([("etc/passwd", b""), ("models/l", "= etc/passwd")], "leads out"),
    "a link to nothing": ([("models/a", b""), ("models/l", "-> gone")], "nowhere"),
    "links in a circle": ([("models/a", "-> b"), ("models/b", "-> a")], "itself"),
    "a file and a folder": ([("models/d", b""), ("models/d/a", b"")], "as a file and as a folder"),
    "a link for the root": ([("opt/m/a", b""), ("models", "-> opt/m")], "no folder"),
    "lading's own name": ([("models/.lading/x", b"")], "holds"),
}


@pytest.mark.parametrize(("members", "word"), REFUSED_LAYERS.values(), ids=REFUSED_LAYERS)
@pytest.mark.parametrize("number", [0, 1])
def test_a_layer_that_would_harm_is_refused(registry, bring, tmp_path, members, word, number):
    registry.put_image(*[tar(("models/first", b""))] * number, tar(*members))
    error = refused(bring, IntegrityError)
    assert word in error.message or word in error.hint or word == "which"
    untouched(tmp_path)


def test_a_device_in_a_layer_is_refused_only_below_models(registry, bring):
    device = tarfile.TarInfo("dev/null")
    device.type, device.devmajor, device.devminor = tarfile.CHRTYPE, 1, 3
    registry.put_image(tar(device, ("models/a", b"a")))
    assert bring()[0] == {"a": b"a"}
    device.name = "models/null"
    registry.put_image(tar(device, ("models/a", b"a")))
    refused(bring, Unsupported, "device")


@pytest.mark.parametrize("limits", [Limits(unpack_bytes=MIB), Limits(unpack_members=3)])
def test_the_limits_are_of_all_layers_together(registry, bring, tmp_path, limits):
    registry.put_image(*(tar((f"models/{name}", bytes(MIB // 2)), (f"other/{name}", b"")) for name in "abc"))
    refused(bring, IntegrityError, "more than", limits=limits)
    untouched(tmp_path)


def test_an_image_without_models_says_so(registry, bring):
    registry.put_image(tar(("etc/passwd", b"root")))
    refused(bring, NotFound, "/models")


def test_patterns_choose_among_the_files_in_the_layers(registry, bring):
    registry.put_image(tar(("models/a.bin", b"a"), ("models/a.json", b"{}")), tar(("models/l.json", "-> a.bin")))
    assert bring(allow=("*.json",))[0] == {"a.json": b"{}", "l.json": b"a"}


def test_patterns_that_leave_nothing_are_an_error(registry, bring):
    registry.put_image(tar(("models/a.bin", b"a")))
    refused(bring, NotFound, "a.bin", allow=("*.json",))


def test_the_same_layer_may_come_twice(registry, bring):
    layer = tar(("models/a", b"a"))
    registry.put_image(layer, tar(("models/.wh.a", b""), ("models/b", b"")), layer)
    assert bring()[0] == {"a": b"a", "b": b""}


# What is done again, and what is not.


def test_an_image_that_is_there_is_not_fetched_again_even_if_its_tag_moved_to_its_twin(registry, bring, server):
    registry.put_image(tar(("models/a", b"a")), tar(("models/b", b"b")))
    bring()
    server.requests.clear()
    bring()
    assert [r for r in server.requests if "/blobs/" in r.path and not probes(r)] == []


def test_a_tag_that_moved_is_delivered_anew(registry, bring):
    registry.put_image(tar(("models/a", b"1"), ("models/gone", b"")))
    bring()
    registry.put_image(tar(("models/a", b"2")))
    assert bring()[0] == {"a": b"2"}


def test_an_artifact_that_lost_a_file_beside_its_layers_is_delivered_anew(registry, bring):
    layer = registry.put_blob(tar(("t", b"t")), "application/vnd.cncf.model.doc.v1.tar")
    raw = registry.put_blob(b"r", "application/vnd.cncf.model.weight.v1.raw")
    raw["annotations"] = {"org.cncf.model.filepath": "r"}
    registry.put_artifact(layer, raw)
    assert bring()[0] == {"t": b"t", "r": b"r"}
    registry.put_artifact(layer)
    assert bring()[0] == {"t": b"t"}


# Platforms.


def put_index(registry, *platforms, tag="latest"):
    entries = []
    for platform in platforms:
        image = registry.put_image(tar(("models/name", str(platform).encode())), tag=f"one-{len(entries)}")
        system, _, architecture = platform.partition("/")
        entries.append(image | ({"platform": {"os": system, "architecture": architecture}} if platform else {}))
    registry.put_manifest(tag, {"mediaType": INDEX, "manifests": entries})
    return digest_of(registry.manifests[tag])


def test_of_an_index_the_image_for_this_machine_is_taken(registry, bring):
    pin = put_index(registry, "windows/amd64", "linux/s390x", f"linux/{MACHINE}")
    tree, manifest = bring()
    assert tree == {"name": f"linux/{MACHINE}".encode()}
    assert manifest.resolved == registry.uri(pin)


def put_entries(registry, *entries):
    """An index: each entry is what it has beside its descriptor, and names the image that it is of."""
    made = []
    for entry in entries:
        image = registry.put_image(tar(("models/name", entry["image"].encode())), tag="part")
        made.append(entry | image)
    registry.put_manifest("latest", {"mediaType": INDEX, "manifests": made})
    return [entry["digest"] for entry in made]


def of(platform, image="", **more):
    keys = ("os", "architecture", "variant")
    return {"image": image or platform, "platform": dict(zip(keys, platform.split("/"), strict=False)), **more}


ATTESTED = {"annotations": {"vnd.docker.reference.type": "attestation-manifest"}}
# What an index has, the image that is taken, and the platform that it is said to be for.
INDEXES = {
    "this one last": ([of("windows/amd64"), of("linux/s390x"), of(f"linux/{MACHINE}")], f"linux/{MACHINE}", ""),
    "another one": ([of("linux/s390x", "a")], "a", "linux/s390x"),
    "of another system": ([of("windows/s390x", "a")], "a", "windows/s390x"),
    "one for two others": ([of("linux/s390x", "a"), of("linux/ppc64le", "a")], "a", "linux/ppc64le"),
    "variants of another": ([of("linux/arm/v7", "a"), of("linux/arm/v6", "b")], "a", "linux/arm"),
    "variants of this one": ([of(f"linux/{MACHINE}/v8", "a"), of(f"linux/{MACHINE}/v9", "b")], "a", ""),
    "beside what is attested": ([of("unknown/unknown", **ATTESTED), of("linux/s390x", "a")], "a", "linux/s390x"),
    "beside an unknown": ([of("unknown/unknown"), of("linux/s390x", "a")], "a", "linux/s390x"),
    "unknown alone": ([of("unknown/unknown", "a")], "a", "unknown/unknown"),
    "an artifact": ([{"image": "a"}], "a", ""),
    "an artifact beside another": ([of("linux/s390x"), {"image": "a"}], "a", ""),
    "an artifact twice": ([{"image": "a"}, {"image": "a"}], "a", ""),
}


@pytest.mark.parametrize(("entries", "image", "platform"), INDEXES.values(), ids=INDEXES)
def test_of_an_index_the_only_image_that_may_be_meant_is_taken(registry, bring, events, entries, image, platform):
    put_entries(registry, *entries)
    assert bring()[0] == {"name": image.encode()}
    told = [event for event in events if isinstance(event, OfAnotherMachine)]
    assert told == ([OfAnotherMachine(registry.uri(), platform, f"linux/{MACHINE}")] if platform else [])


@pytest.mark.parametrize(
    ("entries", "names"),
    [
        ([of("windows/amd64"), of("linux/s390x")], ["windows/amd64", "linux/s390x"]),
        ([{"image": "a"}, of("linux/s390x"), {"image": "b"}], ["entry 1", "linux/s390x", "entry 3"]),
    ],
    ids=["machines", "artifacts"],
)
def test_of_an_index_with_several_others_the_error_names_each(registry, bring, entries, names, tmp_path):
    digests = put_entries(registry, *entries)
    named = [f"{name} is @{digest}" for name, digest in zip(names, digests, strict=True)]
    refused(bring, NotFound, f"linux/{MACHINE}", *named)
    untouched(tmp_path)
    # And what the hint says works.
    assert bring(digests[0])[0] == {"name": entries[0]["image"].encode()}


def test_an_index_of_nothing_is_not_found(registry, bring):
    put_entries(registry)
    refused(bring, NotFound, "none at all")


def test_attestations_are_no_images(registry, bring):
    image = registry.put_image(tar(("models/a", b"a")), tag="one")
    attestation = image | {
        "annotations": {"vnd.docker.reference.type": "attestation-manifest"},
        "platform": {"os": "linux", "architecture": MACHINE},
        "digest": f"sha256:{'0' * 64}",
    }
    right = image | {"platform": {"os": "linux", "architecture": MACHINE}}
    registry.put_manifest("latest", {"mediaType": INDEX, "manifests": [attestation, right]})
    assert bring()[0] == {"a": b"a"}


# Artifacts.

PATH = {"org.cncf.model.filepath": "deep/w.bin"}
OLD_PATH = {"org.cnai.model.filepath": "deep/w.bin"}
TITLED = {TITLE: "deep/w.bin"}
UNPACKED = {TITLE: "deep", "io.deis.oras.content.unpack": "true"}
ONE = tar(("deep/w.bin", b"w"))


@pytest.mark.parametrize(
    ("media_type", "data", "annotations"),
    [
        ("application/vnd.cncf.model.weight.v1.raw", b"w", PATH),
        ("application/vnd.cncf.model.weight.v1.tar", ONE, PATH),
        ("application/vnd.cncf.model.weight.config.v1.tar+gzip", gzipped(ONE), PATH),
        ("application/vnd.cncf.model.dataset.v1.tar+zstd", zstd.compress(ONE), {}),
        ("application/vnd.cncf.model.code.v1.raw", b"w", PATH | {TITLE: "other"}),
        ("application/vnd.cnai.model.doc.v1.raw", b"w", OLD_PATH),
        ("application/vnd.cnai.model.weight.v1.tar+gzip", gzipped(ONE), OLD_PATH),
        ("application/vnd.kitops.modelkit.model.v1.tar+gzip", gzipped(ONE), {}),
        ("application/vnd.kitops.modelkit.modelpart.v1.tar", ONE, {}),
        ("application/vnd.docker.ai.safetensors", b"w", PATH),
        ("application/vnd.docker.ai.dir.tar", ONE, PATH),
        ("application/vnd.docker.ai.vllm.config.tar", ONE, {}),
        ("application/octet-stream", b"w", TITLED),
        ("application/vnd.oci.image.layer.v1.tar", b"w", TITLED),
        ("application/vnd.oci.image.layer.v1.tar+gzip", gzipped(ONE), UNPACKED),
        ("application/vnd.oci.image.layer.v1.tar+gzip", gzipped(ONE), {TITLE: "deep"}),
        ("application/vnd.oci.image.layer.v1.tar+gzip", b"w", {TITLE: "deep/w.bin.gz"}),
    ],
)
def test_layers_of_artifacts_become_what_they_say(registry, bring, media_type, data, annotations):
    layer = registry.put_blob(data, media_type) | {"annotations": annotations}
    registry.put_artifact(layer)
    tree, manifest = bring()
    assert tree == {annotations[TITLE] if ".gz" in annotations.get(TITLE, "") else "deep/w.bin": b"w"}
    (known,) = manifest.archives or manifest.files
    assert known.verified == (Digest.parse(digest_of(data)),)


def test_an_artifact_with_the_configuration_of_an_image_is_one_all_the_same(registry, bring):
    layer = registry.put_blob(b"w", "application/vnd.cncf.model.weight.v1.raw") | {"annotations": PATH}
    registry.put_manifest("latest", {"config": registry.put_blob(b"{}", IMAGE_CONFIG), "layers": [layer]})
    assert bring()[0] == {"deep/w.bin": b"w"}


def test_an_encrypted_image_is_said_to_be_one(registry, bring):
    layers = [registry.put_blob(b"x", f"{LAYER}+gzip+encrypted"), registry.put_blob(tar(("models/a", b"")), LAYER)]
    registry.put_manifest("latest", {"config": registry.put_blob(b"{}", IMAGE_CONFIG), "layers": layers})
    refused(bring, Unsupported, "encrypted")


def test_docker_models_of_the_first_format_have_the_runner_s_names(registry, bring):
    gguf = [registry.put_blob(data, "application/vnd.docker.ai.gguf.v3") for data in (b"1", b"2")]
    registry.put_artifact(*gguf, registry.put_blob(b"l", "application/vnd.docker.ai.license"))
    assert bring()[0] == {"model-00001-of-00002.gguf": b"1", "model-00002-of-00002.gguf": b"2", "LICENSE": b"l"}


def test_raw_files_and_trees_make_one_model(registry, bring):
    registry.put_artifact(
        registry.put_blob(tar(("docs/a.md", b"a"), ("docs/b.md", b"b")), "application/vnd.cncf.model.doc.v1.tar"),
        registry.put_blob(FILES["weights/a.bin"], "application/vnd.cncf.model.weight.v1.raw")
        | {"annotations": {"org.cncf.model.filepath": "docs/a.bin"}},
    )
    tree, manifest = bring()
    assert tree == {"docs/a.md": b"a", "docs/b.md": b"b", "docs/a.bin": FILES["weights/a.bin"]}
    assert [file.path for file in manifest.archives] == ["layer-0000"]


@pytest.mark.parametrize("names", [("a", "a"), ("a", "a/b")])
def test_two_layers_that_stand_in_each_other_s_way_are_refused(registry, bring, names):
    raw = registry.put_blob(b"r", "application/octet-stream") | {"annotations": {TITLE: names[0]}}
    registry.put_artifact(raw, registry.put_blob(tar((names[1], b"t")), "application/vnd.kitops.modelkit.code.v1.tar"))
    refused(bring, IntegrityError, "'a'")


@pytest.mark.parametrize("title", ["../evil", "/etc/passwd", "a/../../b", ".lading.manifest", "a\0b"])
def test_a_title_that_leaves_is_refused(registry, bring, tmp_path, title):
    registry.put_artifact(registry.put_blob(b"", "application/octet-stream") | {"annotations": {TITLE: title}})
    refused(bring, IntegrityError)
    untouched(tmp_path)


def test_a_layer_without_a_name_is_not_guessed(registry, bring):
    registry.put_artifact(registry.put_blob(b"x", "application/vnd.helm.chart"))
    refused(bring, Unsupported, "application/vnd.helm.chart", TITLE)


# What does not hold together.


def test_an_empty_blob_has_its_digest_too(registry, bring):
    blob = registry.put_blob(b"", "application/octet-stream") | {"annotations": {TITLE: "a"}}
    registry.put_artifact(blob)
    assert bring()[1].files[0].verified == (Digest.parse(digest_of(b"")),)
    lie = f"sha256:{'0' * 64}"
    registry.blobs[lie] = registry.blobs[blob["digest"]]
    registry.put_artifact(blob | {"digest": lie})
    refused(bring, IntegrityError, lie)


@pytest.mark.parametrize("layered", [False, True])
def test_a_blob_with_a_wrong_byte_leaves_nothing(registry, bring, server, tmp_path, layered):
    if layered:
        registry.put_image(tar(("models/first", b"")), tar(("models/a", content(MIB))))
    else:
        registry.put_files(FILES)
    largest = max(registry.blobs, key=lambda digest: len(registry.blobs[digest].content))
    server.misbehave(registry.path("blobs", largest), wrong_byte(MIB // 2, times=ALWAYS))
    refused(bring, IntegrityError, largest)
    untouched(tmp_path)
    server.behave()
    assert len(bring()[0]) == 2


def test_a_manifest_that_is_not_what_its_digest_says_is_refused(registry, bring):
    digest = registry.put_files(FILES)["digest"]
    registry.manifests[digest] += b" "
    refused(bring, IntegrityError, digest, reference=digest)


def test_what_was_delivered_is_delivered_again_by_its_pin(registry, bring, pull, tmp_path):
    registry.put_image(tar(("models/a", b"1")))
    _, first = bring()
    registry.put_image(tar(("models/a", b"2")))
    again = pull(first.pin, tmp_path / "again", variables=INSECURE)
    assert again.digest == first.digest


def test_a_pinned_digest_is_read_whatever_the_tag_says_now(registry, bring):
    digest = registry.put_files({"a": b"1"})["digest"]
    registry.put_files({"a": b"2"})
    assert bring(digest)[0] == {"a": b"1"}


def test_a_registry_that_says_another_digest_than_it_serves_is_refused(registry, bring, server):
    registry.put_files(FILES)
    lie = {"Docker-Content-Digest": f"sha256:{'0' * 64}"}
    server.misbehave(
        registry.path("manifests", "latest"), status(200, registry.manifests["latest"], headers=lie, times=ALWAYS)
    )
    refused(bring, IntegrityError, "0" * 64)


@pytest.mark.parametrize(
    "manifest",
    [
        b"",
        b"[]",
        b"null",
        b"[" * 100_000,
        b'{"schemaVersion": 1}',
        b'{"schemaVersion": 2}',
        b'{"schemaVersion": 2, "layers": 5}',
        b'{"schemaVersion": 2, "layers": [5]}',
        b'{"schemaVersion": 2, "layers": [{"mediaType": "x"}]}',
        b'{"schemaVersion": 2, "layers": [{"mediaType": "x", "digest": "sha256:x", "size": 1}]}',
        b'{"schemaVersion": 2, "layers": [{"mediaType": "x", "digest": "md5:%b", "size": 1}]}' % (b"0" * 32),
        b'{"schemaVersion": 2, "layers": [{"mediaType": "x", "digest": "sha256:%b", "size": -1}]}' % (b"0" * 64),
        b'{"schemaVersion": 2, "layers": [{"mediaType": "x", "digest": "sha256:%b", "size": true}]}' % (b"0" * 64),
        b'{"schemaVersion": 2, "manifests": [5]}',
        b'{"schemaVersion": 2, "manifests": []}',
        b'{"schemaVersion": 2, "layers": []}',
        b'{"schemaVersion": 2, "layers": [], "x": "' + b"x" * (5 << 20) + b'"}',
    ],
)
def test_a_manifest_that_is_none_is_one_clear_error(registry, bring, server, manifest):
    server.misbehave(registry.path("manifests", "latest"), status(200, manifest, times=ALWAYS))
    refused(bring, (IntegrityError, Unsupported, NotFound))


def test_indexes_of_indexes_end(registry, bring, server):
    entry = {"mediaType": INDEX, "digest": f"sha256:{'0' * 64}", "size": 1}
    for _ in range(6):
        registry.put_manifest("latest", {"mediaType": INDEX, "manifests": [entry]})
        body = registry.manifests["latest"]
        entry = {"mediaType": INDEX, "digest": digest_of(body), "size": len(body)}
    refused(bring, Unsupported, "no layers")


def test_a_tag_that_is_not_there_says_what_is_near(registry, bring):
    registry.put_files(FILES, tag="v1.2")
    refused(bring, NotFound, "did you mean v1.2?", reference="v1.3")


@pytest.mark.parametrize(
    "uri",
    [
        "oci://",
        "oci://host",
        "oci://host/",
        "oci://host/Upper",
        "oci://host/a//b",
        "oci://host/a/../b",
        "oci://host/a:",
        "oci://host/a@sha256",
        "oci://host/a@sha256:12",
        f"oci://host/a@md5:{'0' * 32}",
        "oci://host/a?x=1",
        "oci://host/a#x",
        "oci://user:se-cret@host/a",
        "oci:///a",
        "oci://host:port/a",
    ],
)
def test_what_is_no_reference_is_a_usage_error(pull, tmp_path, uri):
    with pytest.raises(UsageError) as caught:
        pull(uri, tmp_path / "model")
    assert "se-cret" not in f"{caught.value.message}{caught.value.hint}"


def test_without_a_tag_it_is_the_latest(registry, pull, tmp_path):
    registry.put_files(FILES)
    pull(registry.uri().removesuffix(":latest"), tmp_path / "model", variables=INSECURE)
    assert read_tree(tmp_path / "model") == FILES


@pytest.mark.parametrize("host", ["docker.io", "index.docker.io", "registry-1.docker.io"])
def test_docker_hub_answers_elsewhere_than_it_is_called(server, pull, tmp_path, host):
    # The proxy sees where it would have led, and nothing leaves this machine.
    with pytest.raises((Unavailable, NotAllowed)):
        pull(f"oci://{host}/model", tmp_path / "model", network=Network(https_proxy=server.url))
    assert {(request.method, request.target) for request in server.requests} == {
        ("CONNECT", "registry-1.docker.io:443")
    }


def test_what_kserve_mounts_is_left_to_kserve(pull, tmp_path):
    with pytest.raises(Unsupported) as caught:
        pull("oci+native://host/a:v1", tmp_path / "model")
    assert "oci+fetch://" in caught.value.hint


def test_oci_fetch_is_the_same(registry, bring):
    registry.put_files(FILES)
    assert bring(scheme="oci+fetch")[0] == FILES


# How blobs travel.


def test_a_blob_comes_in_ranges_and_a_retry_goes_on_where_it_stopped(registry, bring, server):
    registry.put_files(FILES)
    path = registry.path("blobs", digest_of(FILES["weights/a.bin"]))
    server.misbehave(path, cut(at=100_000))
    assert bring(range_bytes=MIB // 4)[0] == FILES
    starts = [request.byte_range(MIB)[0] % (MIB // 4) for request in server.requests_for(path)]
    # The probe, four ranges, and the rest of one of them.
    assert sorted(starts) == [0, 0, 0, 0, 0, 100_000]


@pytest.mark.parametrize("layered", [False, True])
def test_a_registry_without_ranges_is_read_in_one_piece(registry, bring, server, layered):
    data = tar(("models/a", content(MIB)))
    layer = registry.put_blob(data, LAYER, ranges=False)
    if layered:
        registry.put_manifest("latest", {"config": registry.put_blob(b"{}", IMAGE_CONFIG), "layers": [layer]})
    else:
        registry.put_artifact(layer | {"annotations": {TITLE: "a"}})
    assert bring(range_bytes=MIB // 4)[0] == {"a": content(MIB) if layered else data}


def test_layers_land_at_the_same_time_and_are_read_in_their_order(registry, bring, server):
    parts = [
        tar((f"models/{number}", content(MIB, seed=number)), ("models/last", bytes([number]))) for number in range(4)
    ]
    registry.put_image(*parts)
    first = registry.path("blobs", digest_of(parts[0]))
    others = [registry.path("blobs", digest_of(part)) for part in parts[1:]]

    def hold(request, total):
        if request.path == first and not probes(request):
            # The first layer ends only after all others are under way.
            for other in others:
                assert server.wait_for_request(other, timeout_s=10)

    server.on_sent = hold
    tree, _ = bring(limits=Limits(workers=4, attempts=4), range_bytes=MIB // 2)
    assert tree == {str(number): content(MIB, seed=number) for number in range(4)} | {"last": b"\3"}


def test_what_landed_of_a_layer_that_was_not_read_yet_is_kept(registry, bring, server):
    parts = [tar((f"models/{number}", content(MIB, seed=number))) for number in range(2)]
    registry.put_image(*parts)
    first, second = (registry.path("blobs", digest_of(part)) for part in parts)

    def hold(request, total):
        # One range of the first layer only: every other worker goes on to the second.
        if request.path == first and not probes(request) and request.headers["range"].startswith("bytes=0-"):
            assert server.wait_for_request(second, timeout_s=40, count=5)

    server.on_sent = hold
    # In the first header, which its reader does not get past; by then most of the second one is here.
    server.misbehave(first, wrong_byte(100, times=ALWAYS))
    refused(bring, IntegrityError, limits=Limits(workers=8, attempts=3, stall_s=60.0), range_bytes=MIB // 4)
    server.behave()
    assert set(bring(range_bytes=MIB // 4)[0]) == {"0", "1"}
    assert len(server.requests_for(second, of=lambda request: not probes(request))) < 5


# Logins.

AUTH = "dXNlcjpwYXNzd29yZA=="


def config(registry, entry, key="{host}", **more):
    return {".dockerconfigjson": json.dumps({"auths": {key.format(host=registry.host): entry}} | more)}


@pytest.mark.parametrize(
    "entry", [{"auth": AUTH}, {"username": "user", "password": "password"}, {"auth": AUTH, "email": "x@y"}]
)
@pytest.mark.parametrize("key", ["{host}", "http://{host}", "https://{host}/v1/", "{host}/team", "{host}/team/model"])
def test_basic_with_every_form_of_login(registry, bring, entry, key):
    registry.put_files(FILES)
    registry.authorize = basic_only
    assert bring(variables=config(registry, entry, key))[0] == FILES


@pytest.mark.parametrize("entry", [{"auth": AUTH}, {"identitytoken": "identity"}, {"auth": "PHRva2VuPjppZGVudGl0eQ=="}])
def test_tokens_for_a_login(registry, bring, entry):
    registry.put_files(FILES)
    service = TokenService(registry)
    assert bring(variables=config(registry, entry))[0] == FILES
    assert len(service.asked) == 1


def test_anonymous_tokens(registry, bring):
    registry.put_files(FILES)
    service = TokenService(registry, public=True)
    assert bring()[0] == FILES
    assert "authorization" not in service.asked[0].headers


def test_a_registry_token_is_shown_as_it_is(registry, bring):
    registry.put_files(FILES)
    service = TokenService(registry)
    service.tokens, service.left = 7, 1000
    assert bring(variables=config(registry, {"registrytoken": "token-7"}))[0] == FILES
    assert service.asked == []


def test_a_token_that_ends_in_the_middle_is_renewed(registry, bring, clock):
    registry.put_files(FILES)
    service = TokenService(registry)
    service.uses = 3
    assert bring(variables=config(registry, {"auth": AUTH}), range_bytes=MIB // 8)[0] == FILES
    assert service.tokens > 2


WRONG = {
    "no login": {},
    "a wrong password": {"OCI_USERNAME": "user", "OCI_PASSWORD": "se-cret"},
    "another host": {".dockerconfigjson": json.dumps({"auths": {"other.example": {"auth": AUTH}}})},
    "another path": {".dockerconfigjson": json.dumps({"auths": {"127.0.0.1/team/mod": {"auth": AUTH}}})},
    "another port": {".dockerconfigjson": json.dumps({"auths": {"127.0.0.1": {"auth": AUTH}}})},
}


@pytest.mark.parametrize("variables", WRONG.values(), ids=WRONG)
@pytest.mark.parametrize("tokens", [False, True])
def test_a_login_that_is_wrong_is_one_error_and_not_asked_again(registry, bring, server, variables, tokens):
    registry.put_files(FILES)
    registry.authorize = basic_only
    service = TokenService(registry) if tokens else None
    error = refused(bring, NotAllowed, variables=variables)
    assert "se-cret" not in f"{error.message}{error.hint}"
    assert len(server.requests) <= 4
    assert service is None or len(service.asked) == 1


@pytest.mark.parametrize(
    "helpers", [{"credsStore": "osxkeychain"}, {"credHelpers": {"{host}": "ecr-login"}}], ids=["store", "helper"]
)
def test_a_helper_that_would_know_the_login_is_named_only_when_it_is_missed(registry, bring, helpers):
    registry.put_files(FILES)
    filled = json.loads(json.dumps(helpers).replace("{host}", registry.host))
    variables = config(registry, {}, **filled)
    assert bring(variables=variables)[0] == FILES
    registry.authorize = basic_only
    registry.put_files({"a": b""})
    refused(bring, NotAllowed, "docker-credential-", variables=variables)


def test_the_longest_scope_wins(registry, bring):
    registry.put_files(FILES)
    registry.authorize = basic_only
    host, wrong = registry.host, {"username": "user", "password": "wrong"}
    auths = {host: wrong, f"{host}/team": {"auth": AUTH}, f"{host}/te": wrong, f"{host}/team/model2": wrong}
    assert bring(variables={".dockerconfigjson": json.dumps({"auths": auths})})[0] == FILES


@pytest.mark.parametrize("named", ["KSERVE_OCI_DOCKER_CONFIG", "REGISTRY_AUTH_FILE", "DOCKER_CONFIG", "HOME"])
def test_the_file_is_where_kserve_podman_and_docker_have_it(registry, bring, tmp_path, named):
    registry.put_files(FILES)
    registry.authorize = basic_only
    folder = tmp_path / "etc" / (".docker" if named == "HOME" else "")
    folder.mkdir(parents=True)
    (folder / "config.json").write_text(json.dumps({"auths": {registry.host: {"auth": AUTH}}}))
    value = {"HOME": folder.parent, "DOCKER_CONFIG": folder}.get(named, folder / "config.json")
    _, manifest = bring(variables={named: str(value)})
    assert manifest.total_files if hasattr(manifest, "total_files") else manifest.files


def test_a_file_that_is_named_must_be_there(registry, bring, tmp_path):
    refused(bring, NotAllowed, "nothing-here", variables={"KSERVE_OCI_DOCKER_CONFIG": str(tmp_path / "nothing-here")})


@pytest.mark.parametrize(
    "text", ["se-cret", "[]", '{"auths": {"%s": {"auth": "se-cret"}}}', '{"auths": {"%s": {"auth": "c2UtY3JldA=="}}}']
)
def test_a_configuration_that_is_none_is_said_and_not_quoted(registry, bring, text):
    error = refused(bring, UsageError, variables={".dockerconfigjson": text.replace("%s", registry.host)})
    assert "cret" not in f"{error.message}{error.hint}"


def test_storage_json_and_credentials_for_a_prefix(registry, bring):
    registry.put_files(FILES)
    registry.authorize = basic_only
    from lading.settings.settings import Settings

    spec = json.dumps({"type": "oci", "username": "user", "password": "password", "insecure": True})
    variables = Settings.load({"STORAGE_CONFIG": spec}).variables
    assert bring(variables=dict(variables))[0] == FILES


# Whom a login is shown.


def test_no_login_follows_a_redirect_to_storage(registry, bring, server):
    registry.put_files(FILES)
    registry.authorize = basic_only
    with FaultyServer() as storage:
        for digest, blob in registry.blobs.items():
            storage.resources[f"/{digest}"] = blob
            server.misbehave(registry.path("blobs", digest), redirect(f"{storage.url}/{digest}", 307))
        assert bring(variables=config(registry, {"auth": AUTH}), range_bytes=MIB // 4)[0] == FILES
        assert storage.requests
        assert not any("authorization" in request.headers for request in storage.requests)


def test_storage_that_asks_for_a_login_gets_none(registry, bring, server):
    registry.put_files(FILES)
    with FaultyServer() as storage, FaultyServer() as thief:
        asks = Answer(401, {"WWW-Authenticate": f'Bearer realm="{thief.url}/token",service="x"'})
        storage.misbehave("", Fault(lambda *_: asks, times=ALWAYS, on=anything))
        for digest in registry.blobs:
            server.misbehave(registry.path("blobs", digest), redirect(f"{storage.url}/{digest}", 307))
        refused(bring, NotAllowed, variables=config(registry, {"auth": AUTH}))
        assert storage.requests
        assert thief.requests == []


@pytest.mark.parametrize("realm", ["ftp://host/token", "", "file:///etc/passwd", "http//x", "http://[::1/token"])
def test_a_realm_that_is_no_url_is_shown_nothing(registry, bring, realm):
    registry.put_files(FILES)
    TokenService(registry).realm = realm
    refused(bring, (NotAllowed, Unsupported, UsageError), variables=config(registry, {"auth": AUTH}))


def test_a_registry_with_tls_does_not_have_its_logins_sent_without(pull, tmp_path):
    authority = Authority(tmp_path)
    with FaultyServer(authority.server_context("127.0.0.1")) as server, FaultyServer() as open_server:
        registry = FakeRegistry(server)
        registry.put_files(FILES)
        service = TokenService(registry, open_server)
        known = config(registry, {"auth": AUTH})
        settings = {"variables": known, "network": Network(ca_files=(authority.bundle,))}
        with pytest.raises(NotAllowed) as caught:
            pull(registry.uri(), tmp_path / "model", **settings)
        assert "https" in caught.value.message
        assert service.asked == []
        service.realm = f"{server.url}/token"
        server.routes["/token"] = service.give
        pull(registry.uri(), tmp_path / "model", **settings)
    assert read_tree(tmp_path / "model") == FILES


def test_a_token_service_elsewhere_is_verified_even_if_the_registry_is_not(registry, bring, tmp_path):
    registry.put_files(FILES)
    authority = Authority(tmp_path)
    with FaultyServer(authority.server_context("127.0.0.1")) as secure:
        service = TokenService(registry, secure)
        known = config(registry, {"auth": AUTH})
        refused(bring, NotAllowed, "certificate", variables=known)
        assert service.asked == []
        assert bring(variables=known, network=Network(ca_files=(authority.bundle,)))[0] == FILES


def test_an_insecure_registry_with_tls_may_have_its_own_token_service(pull, tmp_path):
    with FaultyServer(Authority(tmp_path).server_context("127.0.0.1")) as server:
        registry = FakeRegistry(server)
        registry.put_files(FILES)
        TokenService(registry)
        pull(registry.uri(), tmp_path / "model", variables=INSECURE | config(registry, {"auth": AUTH}))
    assert read_tree(tmp_path / "model") == FILES


@pytest.mark.parametrize("answer", [b"", b"[]", b"{}", b'{"token": 5}', b'{"token": ""}', b'{"token": "a\\r\\nX: y"}'])
def test_a_token_service_that_gives_none_is_one_error(registry, bring, server, answer):
    registry.put_files(FILES)
    TokenService(registry, public=True)
    server.misbehave("/token", status(200, answer, times=ALWAYS))
    refused(bring, Unsupported, "token")


# What a registry offers, in one header or several; BEARER stands for the challenge of its token service.
OFFERS = {
    "Bearer": ["BEARER"],
    "Basic, Bearer": ['Basic realm="Registry"', "BEARER"],
    "Bearer, Basic": ["BEARER", 'Basic realm="Registry"'],
    "Negotiate, Bearer, Digest": ["Negotiate YIIabc==", "BEARER", 'Digest realm="x", qop="auth, auth-int"'],
    "a realm with commas": ['Basic realm="for you, Bearer realm=x, service=y"', "BEARER"],
    "another service": ['Unknown service="other",scope="repository:other:pull"', "BEARER"],
}


def offering(registry, challenges, accepts, *, together):
    def authorize(request):
        if accepts(request):
            return None
        if together:
            return Answer(401, {"WWW-Authenticate": ", ".join(challenges)})
        # Names that differ for a dictionary, and for nobody else.
        names = ["WWW-Authenticate", "www-authenticate", "Www-Authenticate"]
        return Answer(401, dict(zip(names, challenges, strict=False)))

    registry.authorize = authorize


def bearer_of(service):
    return service.check(Request("GET", "/", {}, b"")).headers["WWW-Authenticate"]


@pytest.mark.parametrize("together", [True, False], ids=["one header", "several"])
@pytest.mark.parametrize("offer", OFFERS.values(), ids=OFFERS)
@pytest.mark.parametrize("login", [False, True], ids=["anonymous", "login"])
def test_of_several_challenges_bearer_is_answered(registry, bring, offer, together, login):
    registry.put_files(FILES)
    service = TokenService(registry, public=not login)
    challenges = [challenge.replace("BEARER", bearer_of(service)) for challenge in offer]
    offering(registry, challenges, lambda request: service.check(request) is None, together=together)
    assert bring(variables=config(registry, {"auth": AUTH}) if login else {})[0] == FILES
    assert parse_qs(service.asked[0].query)["service"] == ["registry.example"]


BASIC_OFFERS = {
    "Negotiate first": ["Negotiate", 'Basic realm="Registry"'],
    "after an unknown": ['Digest realm="a, Bearer realm=b"', 'Basic realm="Registry"'],
    "a Bearer without realm": ["Bearer", 'Basic realm="Registry"'],
    "a Bearer that does not help": ["BEARER", 'Basic realm="Registry"'],
    "without realm": ["Basic"],
}


@pytest.mark.parametrize("together", [True, False], ids=["one header", "several"])
@pytest.mark.parametrize("offer", BASIC_OFFERS.values(), ids=BASIC_OFFERS)
def test_without_a_token_that_helps_basic_is_answered(registry, bring, clock, offer, together):
    registry.put_files(FILES)
    service = TokenService(registry)
    challenges = [challenge.replace("BEARER", bearer_of(service)) for challenge in offer]
    offering(registry, challenges, lambda request: basic_only(request) is None, together=together)
    assert bring(variables=config(registry, {"auth": AUTH}))[0] == FILES
    assert clock.waits == []


@pytest.mark.parametrize("challenge", ['Digest realm="x"', "Negotiate", 'Digest realm="Basic", NTLM'])
def test_an_authorization_that_is_not_known_is_unsupported(registry, bring, challenge):
    registry.put_files(FILES)
    registry.authorize = lambda request: Answer(401, {"WWW-Authenticate": challenge})
    refused(bring, Unsupported, "Basic", challenge.partition(" ")[0].lower())


def test_without_the_switch_a_registry_must_speak_tls(registry, pull, tmp_path):
    registry.put_files(FILES)
    with pytest.raises(Unsupported) as caught:
        pull(registry.uri(), tmp_path / "model")
    assert "KSERVE_OCI_INSECURE_REGISTRY" in caught.value.hint


def test_resolving_tells_the_pin_and_moves_nothing(registry, new_session, tmp_path):
    pin = registry.put_files(FILES)["digest"]
    found = find(Asked(registry.uri(), tmp_path), new_session(variables=INSECURE))
    assert found.listed.resolved == registry.uri(pin)
    assert [str(file.declared[0]) for file in found.listed.files] == [digest_of(data) for data in FILES.values()]
    assert MANIFEST in registry.server.requests[-2].headers["accept"]
