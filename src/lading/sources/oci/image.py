"""OCI registries: ``oci://host[:port]/repository[:tag|@digest]``, ``oci+fetch://`` alike.

https://github.com/opencontainers/distribution-spec/blob/main/spec.md.  Of an index, the image for this
machine's platform.  Of an image, what its layers hold below ``/models`` (a modelcar); of an artifact (CNCF
ModelPack, KitOps, Docker Model, ORAS) each layer as the file that its annotations name, or as the tree
in it.  A tag is a channel; the digest of the manifest's bytes is the pin.
"""

import os
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any
from urllib.parse import quote

from lading.auth.docker_config import find_login
from lading.errors import HostNotFound, IntegrityError, NotFound, Unsupported, UsageError
from lading.events import OfAnotherMachine
from lading.model.byte_range import ByteRange
from lading.model.digest import Digest
from lading.model.listing import Layer, ListedFile, Listing
from lading.model.signature import Attachment, Sought
from lading.model.uri import ModelURI
from lading.network.answer import read_probe
from lading.network.client import HttpClient
from lading.network.headers import check_answer, range_header
from lading.settings.oci import DOCKER_HUB, canonical_host, read_oci
from lading.settings.settings import Settings
from lading.sources.oci.attachments import attachments
from lading.sources.oci.distribution import EMPTY, PLAIN, Descriptor, Repository, read_descriptor, read_digest
from lading.sources.source import Sink
from lading.text.printable import printable
from lading.text.suggest import suggest

_MOST_INDEXES = 3
_MOST_LAYERS = 10_000
_MOST_NAMED = 5
_IMAGE_FOLDER = "models"
_DOCKER_HUB_HOST = "registry-1.docker.io"

# https://github.com/opencontainers/distribution-spec/blob/main/spec.md#pulling-manifests, and the
# patterns of https://pkg.go.dev/github.com/distribution/reference.
_HOST = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9.-]*[A-Za-z0-9])?\.?(?::[0-9]{1,5})?|\[[0-9A-Fa-f:.]+\](?::[0-9]{1,5})?")
_NAME = r"[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*"
_REFERENCE = re.compile(
    rf"/(?P<repository>{_NAME}(?:/{_NAME})*)(?::(?P<tag>[A-Za-z0-9_][A-Za-z0-9_.-]{{0,127}}))?(?:@(?P<digest>[a-z0-9]+:[0-9a-f]+))?"
)

_IMAGE_CONFIGS = ("application/vnd.oci.image.config.v1+json", "application/vnd.docker.container.image.v1+json")
_IMAGE_LAYER = re.compile(
    r"application/vnd\.(?:oci\.image\.layer\.(?:nondistributable\.)?v1\.tar(?:\+gzip|\+zstd)?"
    r"|docker\.image\.rootfs\.(?:foreign\.)?diff\.tar(?:\.gzip|\.zstd)?)"
)
# Artifacts whose media types say that a layer is a tar; of any other, only an annotation does.
_MODEL_TAR = re.compile(r"application/vnd\.(?:cncf\.model|cnai\.model|kitops|docker\.ai)\..*[.+]tar(?:\+gzip|\+zstd)?")
# The type that oras (Python) gives to folders; to files it gives that of a tar without compression.
_FOLDERS = ("application/vnd.oci.image.layer.v1.tar+gzip", "application/vnd.oci.image.layer.v1.tar+zstd")
_UNKNOWN = "unknown/unknown"
_UNPACK = "io.deis.oras.content.unpack"
_NAMES = ("org.cncf.model.filepath", "org.cnai.model.filepath", "org.opencontainers.image.title")
# What Docker Model Runner calls the layers that its first format leaves without a name.
_DOCKER_NAMES = {
    "application/vnd.docker.ai.gguf.v3": "model.gguf",
    "application/vnd.docker.ai.safetensors": "model.safetensors",
    "application/vnd.docker.ai.dduf": "model.dduf",
    "application/vnd.docker.ai.mmproj": "model.mmproj",
    "application/vnd.docker.ai.chat.template.jinja": "template.jinja",
    "application/vnd.docker.ai.license": "LICENSE",
}
# uname(2)'s words for machines, and Go's, which platforms are named in.
_MACHINES = {"x86_64": "amd64", "aarch64": "arm64", "armv7l": "arm", "i686": "386"}


class OciSource:
    """One image or artifact of a registry.  The validator is the blob's digest."""

    def __init__(self, uri: ModelURI, settings: Settings, http: HttpClient) -> None:
        shown = self._shown = uri.redacted()
        if uri.scheme.lower() == "oci+native":
            raise Unsupported(
                f"{shown} is mounted by KServe itself, as an image volume",
                hint="write oci:// or oci+fetch:// to have lading fetch it",
            )
        found = _REFERENCE.fullmatch(uri.path)
        if uri.query is not None or uri.fragment is not None or not _HOST.fullmatch(uri.authority or "") or not found:
            raise UsageError(
                f"{shown} is not a reference to an image", hint="write oci://host/repository:tag, or @sha256:…"
            )
        host, repository = canonical_host(uri.authority or ""), found["repository"]
        if host == DOCKER_HUB and "/" not in repository:
            repository = f"library/{repository}"
        try:
            self._digest = read_digest(found["digest"], shown) if found["digest"] else None
        except IntegrityError as error:
            raise UsageError(error.message, hint=error.hint) from error
        self._tag = found["tag"] or "latest"
        self._uri = ModelURI(uri.scheme, uri.authority, f"/{found['repository']}")
        self.pin = uri
        self.manifest_digest: Digest | None = None
        oci = read_oci(settings.variables)
        self._http = http
        address = _DOCKER_HUB_HOST if host == DOCKER_HUB else uri.authority or ""
        login = find_login(oci, host, repository)
        self._repository = Repository(address, repository, login, shown, http, insecure=oci.insecure)

    @property
    def credential_kind(self) -> str:
        return self._repository.credential_kind

    def list(self) -> Listing:
        digest, manifest = self._manifest(str(self._digest) if self._digest else self._tag)
        self.manifest_digest, self.pin = digest, self._pin_at(digest)
        for _ in range(_MOST_INDEXES):
            if not isinstance(manifest.get("manifests"), list):
                break
            _, manifest = self._manifest(str(self._for_this_machine(manifest["manifests"])))
        files = self._files(manifest)
        largest = max(files, key=lambda file: file.size_bytes or 0)
        if largest.size_bytes and not self._has_ranges(largest):
            files = [file._replace(ranged=False) for file in files]
        return Listing.of(files)

    def find_pin(self) -> ModelURI | None:
        digest = self._repository.find_digest(str(self._digest or self._tag))
        return self._pin_at(digest) if digest else None

    def _pin_at(self, digest: Digest) -> ModelURI:
        return self._uri._replace(path=f"{self._uri.path}@{digest}")

    def read(self, file: ListedFile, byte_range: ByteRange, sink: Sink) -> None:
        what = self._shown_file(file)
        headers = [PLAIN, *range_header(byte_range, file.size_bytes)]
        with self._repository.open(f"/blobs/{file.locator}", headers, what, of=file) as answer:
            check_answer(answer.head, byte_range, file.size_bytes, what)
            answer.read_into(sink.write)

    def attachments(self, sought: Sought) -> Iterator[Attachment]:
        if self.manifest_digest is None:
            raise ValueError("nothing was listed")
        return attachments(self._repository, self.manifest_digest, sought)

    def _manifest(self, reference: str) -> tuple[Digest, Mapping[str, Any]]:
        try:
            return self._repository.manifest(reference)
        except HostNotFound:
            raise
        except NotFound as error:
            raise NotFound(error.message, hint=self._suggestion(reference)) from error

    def _for_this_machine(self, entries: Iterable[Any]) -> Digest:
        """The image of an index for this platform, or for none; else the only one there is: models fit any machine."""
        wanted = f"linux/{_architecture()}"
        images = self._images(entries)
        if wanted in images:
            return images[wanted]
        untied = {digest for name, digest in images.items() if "/" not in name}
        found = untied or set(images.values())
        if len(found) != 1:
            some = [f"{printable(name)} is @{digest}" for name, digest in images.items()][:_MOST_NAMED]
            raise NotFound(
                f"{self._shown} has no image for {wanted}",
                hint=f"write the digest of one of its images: {', '.join(some)}" if some else "it has none at all",
            )
        if not untied:
            self._http.tell(OfAnotherMachine(self._shown, printable(min(images)), wanted))
        return found.pop()

    def _images(self, entries: Iterable[Any]) -> dict[str, Digest]:
        """The first image of an index for each platform, or "entry 2" for one that is for none.

        Variants of a processor differ in programs, not in models.
        """
        images: dict[str, Digest] = {}
        for number, entry in enumerate(entries, 1):
            descriptor = read_descriptor(entry, self._shown)
            # What BuildKit attests about an image is no image.
            if not descriptor.annotations.get("vnd.docker.reference.type"):
                images.setdefault(_platform(entry) or f"entry {number}", descriptor.digest)
        # Nor is what other tools mark in this way alone.
        return {name: digest for name, digest in images.items() if name != _UNKNOWN} or images

    def _files(self, manifest: Mapping[str, Any]) -> Sequence[ListedFile]:
        layers = manifest.get("layers")
        if not isinstance(layers, list) or len(layers) > _MOST_LAYERS:
            raise Unsupported(f"{self._shown} has no layers")
        descriptors = [read_descriptor(layer, self._shown) for layer in layers]
        config = manifest.get("config")
        is_image = isinstance(config, dict) and config.get("mediaType") in _IMAGE_CONFIGS
        # Some tools write an artifact with the configuration of an image.
        has_image_layers = any(_IMAGE_LAYER.fullmatch(found.media_type) for found in descriptors)
        if is_image and has_image_layers and not manifest.get("artifactType"):
            files = list(self._image_layers(descriptors))
        else:
            files = list(self._artifact_files(descriptors))
        if not files:
            raise NotFound(f"{self._shown} has no layer with files")
        return files

    def _image_layers(self, descriptors: Iterable[Descriptor]) -> Iterator[ListedFile]:
        for number, found in enumerate(descriptors):
            if _IMAGE_LAYER.fullmatch(found.media_type):
                yield _layer(found, number, _IMAGE_FOLDER)
            elif found.media_type.endswith("+encrypted"):
                raise Unsupported(f"{self._shown} has encrypted layers")

    def _artifact_files(self, descriptors: Sequence[Descriptor]) -> Iterator[ListedFile]:
        totals = Counter(found.media_type for found in descriptors)
        seen: Counter[str] = Counter()
        for number, found in enumerate(descriptors):
            seen[found.media_type] += 1
            if found.media_type == EMPTY:
                continue
            name = next((name for key in _NAMES if (name := found.annotations.get(key))), "")
            if _is_tree(found, name):
                yield _layer(found, number)
                continue
            name = name or _docker_name(found.media_type, seen[found.media_type], totals[found.media_type])
            if not name:
                raise Unsupported(
                    f"{self._shown} has a layer without a name, of the type {printable(found.media_type)}",
                    hint="a layer is named by org.opencontainers.image.title or org.cncf.model.filepath",
                )
            yield _file(found, name.removeprefix("./"))

    def _has_ranges(self, file: ListedFile) -> bool:
        """Whether parts of blobs can be had; by one byte of it, since only the answer to a range says so."""
        what = self._shown_file(file)

        send = partial(self._repository.open, f"/blobs/{file.locator}", [PLAIN, ("Range", "bytes=0-0")], what)
        return self._http.ask(send, partial(read_probe, what=what), what=what).status == 206

    def _suggestion(self, reference: str) -> str:
        """Which tags there are in the place of a tag, for a hint."""
        if reference != self._tag:
            return "check the repository's name and the digest: the registry has nothing of that name"
        return suggest(self._tag, self._repository.tags()) or "check the repository's name"

    def _shown_file(self, file: ListedFile) -> str:
        return printable(f"{self._shown}: {file.path}")


def _file(found: Descriptor, path: str, layer: Layer | None = None) -> ListedFile:
    digest = str(found.digest)
    return ListedFile(path, found.size_bytes, digest, (found.digest,), locator=quote(digest, safe=":"), layer=layer)


def _layer(found: Descriptor, number: int, image_folder: str = "") -> ListedFile:
    return _file(found, f"layer-{number:04}", Layer(number, image_folder))


def _is_tree(found: Descriptor, name: str) -> bool:
    """Whether an artifact's layer is a folder that was packed, and not a file as it is."""
    if found.annotations.get(_UNPACK) == "true" or _MODEL_TAR.fullmatch(found.media_type):
        return True
    return found.media_type in _FOLDERS and not name.endswith((".gz", ".tgz", ".zst", ".tzst"))


def _docker_name(media_type: str, number: int, total: int) -> str:
    name = _DOCKER_NAMES.get(media_type, "")
    if not name or total == 1:
        return name
    stem, dot, ending = name.partition(".")
    return f"{stem}-{number:05}-of-{total:05}{dot}{ending}"


def _platform(entry: Mapping[str, Any]) -> str:
    """``os/architecture`` of an index's entry; "" if it says none."""
    platform = entry.get("platform")
    if not isinstance(platform, dict):
        return ""
    return f"{platform.get('os')}/{platform.get('architecture')}"


def _architecture() -> str:
    machine = os.uname().machine
    return _MACHINES.get(machine, machine)
