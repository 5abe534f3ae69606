"""Digests that people write into a registry which has no place for them: one convention for all kinds."""

from collections.abc import Iterator, Mapping
from typing import Any

from lading.errors import IntegrityError, LadingError
from lading.model.digest import Digest
from lading.model.paths import safe_path
from lading.text.json_xml import read_unique_json
from lading.text.printable import printable


def recorded_digests(where: str, *recorded: Mapping[str, Any]) -> dict[str, Digest]:
    """The digests by path that properties or tags record, "" for a model's only file.

    ``sha256``: hexadecimal, of the only file; ``digest.<path>``: ``algorithm:hex`` of a file; ``digests``: JSON of
    the same by path.  ``IntegrityError`` for one that cannot be read, or that another one contradicts.
    """
    found: dict[str, Digest] = {}
    for one in recorded:
        for path, value in _by_path(one, where):
            try:
                digest = Digest.parse(str(value))
                safe_path(path or "only")
            except LadingError as error:
                raise IntegrityError(f"{where} records an invalid digest: {error.message}") from error
            if found.setdefault(path, digest) != digest:
                raise IntegrityError(f"{where} records two digests of {printable(path or 'its file')}")
    return found


def _by_path(recorded: Mapping[str, Any], where: str) -> Iterator[tuple[str, Any]]:
    if "sha256" in recorded:
        value = str(recorded["sha256"])
        yield "", value if ":" in value else f"sha256:{value}"
    for name, value in recorded.items():
        if name.startswith("digest."):
            yield name.removeprefix("digest."), value
    several = recorded.get("digests", {})
    try:
        several = read_unique_json(several) if isinstance(several, str) else several
    except ValueError:
        several = None
    if not isinstance(several, dict):
        raise IntegrityError(f"{where} records digests that are not a JSON object, or one path twice")
    yield from several.items()
