"""What lies beside an image in its repository: manifests that refer to it, and the one under a tag made of its digest.

Anybody who can write to the repository may have put them there, in any number.  One that cannot be read does not hide
the others.
"""

from collections.abc import Iterator, Mapping
from typing import Any

from lading.errors import IntegrityError, LadingError, NotFound, Unsupported
from lading.model.digest import Digest
from lading.model.signature import Attachment, Sought
from lading.sources.oci.distribution import Descriptor, Repository, read_descriptor

# Most images have one or two.
_MOST = 100
_DAMAGED = (IntegrityError, NotFound, Unsupported)


def attachments(repository: Repository, digest: Digest, sought: Sought) -> Iterator[Attachment]:
    """What is ``sought`` beside the image with this digest, each read when it is asked for."""
    for number, found in enumerate(_all(repository, digest, sought)):
        if number == _MOST:
            fault = IntegrityError(f"there are more than {_MOST}, and no more are read")
            yield Attachment(found.name, fault=fault)
            return
        yield found


def _all(repository: Repository, digest: Digest, sought: Sought) -> Iterator[Attachment]:
    referrers = repository.referrers(digest, sought.artifact_type)
    for each in [each for each in referrers if _may_say(each.annotations, sought)][: _MOST + 1]:
        name = str(each.digest)
        try:
            _, manifest = repository.manifest(name)
        except _DAMAGED as error:
            yield Attachment(name, fault=error)
            continue
        if _type_of(manifest) == sought.artifact_type and _may_say(manifest.get("annotations"), sought):
            yield from _layers(repository, manifest, name)
    if sought.tag_ending:
        tag = f"{digest.algorithm}-{digest.value}{sought.tag_ending}"
        try:
            _, manifest = repository.manifest(tag)
        except NotFound:
            return
        except _DAMAGED as error:
            yield Attachment(tag, fault=error)
            return
        yield from _layers(repository, manifest, tag)


def _type_of(manifest: Mapping[str, Any]) -> object:
    config = manifest.get("config")
    return manifest.get("artifactType") or (config.get("mediaType") if isinstance(config, dict) else None)


def _may_say(annotations: object, sought: Sought) -> bool:
    """Whether annotations do not say something else than is sought; a list of referrers may lack them."""
    said = annotations if isinstance(annotations, Mapping) else {}
    return all(said.get(key, text) == text for key, text in sought.saying.items())


def _layers(repository: Repository, manifest: Mapping[str, Any], name: str) -> Iterator[Attachment]:
    layers = manifest.get("layers")
    contents: dict[Digest, bytes | LadingError] = {}
    for each in layers[: _MOST + 1] if isinstance(layers, list) else ():
        try:
            layer = read_descriptor(each, name)
        except IntegrityError as error:
            yield Attachment(name, fault=error)
            continue
        # What several people signed is the same text.
        if layer.digest not in contents:
            contents[layer.digest] = _content(repository, layer, name)
        content = contents[layer.digest]
        if isinstance(content, bytes):
            yield Attachment(name, layer.media_type, layer.annotations, content)
        else:
            yield Attachment(name, fault=content)


def _content(repository: Repository, layer: Descriptor, name: str) -> bytes | LadingError:
    try:
        return repository.blob(layer, name)
    except _DAMAGED as error:
        return error
