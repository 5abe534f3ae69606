"""Deciding which listed files a destination already has.  No I/O: the caller tells what is on disk."""

from collections.abc import Callable, Mapping, Sequence

from lading.model.checks import VerifyMode
from lading.model.digest import STRONG, Digest
from lading.model.listing import ListedFile, Listing
from lading.model.manifest import File, Manifest

# A function: whether the destination has this file as it was delivered.
Holds = Callable[[File], bool]
ExpectedDigests = Mapping[str, Sequence[Digest]]


def unchanged(
    listed: Listing, old: Manifest, expected: ExpectedDigests, verify: VerifyMode, holds: Holds
) -> dict[str, File]:
    """The files of ``old`` that equal the listed ones, by path, with their present validators.

    A file is unchanged if the destination still has it, and it either comes from the same origin with the
    same validator, or was verified against a strong digest that is expected now, too.
    """
    before = old.by_path() if old.opened_by == listed.opened_by else {}
    same_origin = old.origin == listed.origin
    return {
        file.path: was._replace(validator=file.validator, mtime_ns=None)
        for file in listed.files
        if file.layer is None
        and (was := before.get(file.path)) is not None
        and _is_same(file, was, same_origin, expected.get(file.path, ()), verify)
        and holds(was)
    }


def is_delivered(listed: Listing, old: Manifest, expected: ExpectedDigests, verify: VerifyMode, holds: Holds) -> bool:
    """Whether the destination has exactly the listed model, under the same name; also unpacked or decrypted."""
    if _name(old) != _name(listed):
        return False
    archives = {archive.path: archive for archive in old.archives}
    # Only the last delivery knows which files are encrypted.
    opened = archives.keys() if listed.opened_by else ()
    layers = {file.path: file for file in listed.files if file.layer is not None or file.path in opened}
    if layers.keys() != archives.keys() or not all(
        _is_same(layer, archives[path], True, expected.get(path, ()), verify) for path, layer in layers.items()
    ):
        return False
    plain = listed.by_path().keys() - layers.keys()
    if unchanged(listed, old, expected, verify, holds).keys() != plain:
        return False
    if not layers:
        return plain == old.by_path().keys()
    if old.patterns != listed.patterns:
        # Other patterns may choose other files of a layer, which only its tree can tell.
        return False
    # Files from a layer have no validator of their own.
    return plain == {file.path for file in old.files if file.validator} and all(map(holds, old.files))


def is_same_model(sealed: Manifest, old: Manifest) -> bool:
    """Whether both have the same files and the same name; only the files' times may differ."""
    names = [(each.origin, each.registry, each.version, each.signature) for each in (sealed, old)]
    return names[0] == names[1] and [file._replace(mtime_ns=None) for file in old.files] == list(sealed.files)


def _name(manifest: Listing | Manifest) -> tuple[object, ...]:
    return manifest.origin, manifest.registry, manifest.version, manifest.opened_by, manifest.signature


def _is_same(file: ListedFile, was: File, same_origin: bool, expected: Sequence[Digest], verify: VerifyMode) -> bool:
    if file.size_bytes != was.size_bytes or not set(expected) <= set(was.verified):
        return False
    if verify == "strict" and not was.verified:
        return False
    if same_origin and file.validator and file.validator == was.validator:
        return True
    return any(digest in was.verified for digest in (*expected, *file.declared) if digest.algorithm in STRONG)
