"""The signed statement: in-toto (v1), with every file of a model and its digest (OMS 1.0, sections 5 to 8).

    {"_type": …, "subject": [{"name": …, "digest": {"sha256": …}}], "predicateType": …,
     "predicate": {"serialization": {"method": "files", "hash_type": "sha256", "allow_symlinks": false, "ignore_paths": […]},
                   "resources": [{"name": "config.json", "algorithm": "sha256", "digest": …}]}}

With the method ``shards`` a resource is a part of a file, ``weights.bin:0:1000000000``.  ``allow_symlinks`` is about
the signer's walk through the model; it does not matter for a delivery.
"""

import hashlib
import re
from collections.abc import Iterable, Iterator, Mapping
from importlib.util import find_spec
from typing import Any, NamedTuple

from lading.errors import IntegrityError, Untrusted, UsageError
from lading.model.checksums import new_hash
from lading.model.digest import Digest
from lading.model.manifest import MOST_BYTES
from lading.model.paths import name_faults, shown_path
from lading.text.json_xml import read_unique_json
from lading.text.printable import printable

STATEMENT_TYPE = "https://in-toto.io/Statement/v1"
_PREDICATE = "https://model_signing/signature/v1.0"
_OF_BEFORE_1_0 = "https://model_signing/Digests/v0.1"
_HASHES = ("sha256", "blake2b", "blake3")
# A path may have colons: the last two numbers count (OMS 1.0, 6.3.2).
_SHARD = re.compile(r"(?P<path>.+):(?P<start>0|[1-9][0-9]{0,18}):(?P<end>[1-9][0-9]{0,18})", re.DOTALL)
_AGAIN = "sign the model again by: model_signing sign key MODEL_FOLDER"


class SignedFile(NamedTuple):
    """A file of a statement; its size is None if the statement does not tell it."""

    path: str
    digest: Digest
    size_bytes: int | None = None

    @property
    def shown(self) -> str:
        return shown_path(self.path)


class Statement(NamedTuple):
    """The signed files by path; ``ignored`` are the paths of files and folders that the signer left out.

    ``names_empty_files`` is false if the signing method cannot express empty files.
    """

    files: Mapping[str, SignedFile]
    ignored: tuple[str, ...]
    names_empty_files: bool

    def ignores(self, path: str) -> bool:
        """Whether the signer left out this path, or a folder above it."""
        return any(path == each or path.startswith(f"{each}/") for each in self.ignored)


class _Resource(NamedTuple):
    name: str
    value: str


def read_statement(payload: bytes, name: str) -> Statement:
    """Read the signed statement; ``Untrusted`` if it is no statement, or lading cannot check it.

    Call it only after the signature of ``payload`` has been verified.
    """
    try:
        document = read_unique_json(payload)
        if document["predicateType"] == _OF_BEFORE_1_0:
            raise Untrusted(f"{printable(name)} is of a model_signing before 1.0", hint=_AGAIN)
        if (document["_type"], document["predicateType"]) != (STATEMENT_TYPE, _PREDICATE):
            raise _no_statement(name, "it is a statement of something else than a model's files")
        serialization = document["predicate"]["serialization"]
        algorithm, shard_bytes = _method(serialization, name)
        tagged = f"{algorithm}-sharded-{shard_bytes}" if shard_bytes else algorithm
        resources = list(_resources(document["predicate"]["resources"], tagged, algorithm))
        (subject,) = document["subject"]
        _check_root(resources, subject["digest"]["sha256"], name)
        found = _from_shards(resources, algorithm, shard_bytes) if shard_bytes else _whole(resources, algorithm)
        files = list(found)
        ignored = tuple(_text(path).rstrip("/") for path in serialization.get("ignore_paths") or ())
    except (ValueError, KeyError, TypeError, AttributeError, UsageError) as error:
        raise _no_statement(name, f"what it signs is not such a statement ({printable(str(error))[:80]})") from error
    try:
        for _, fault in name_faults(files):
            raise fault
    except IntegrityError as error:
        raise _no_statement(name, error.message) from error
    return Statement({file.path: file for file in files}, ignored, not shard_bytes)


def _method(serialization: Mapping[str, Any], name: str) -> tuple[str, int]:
    """The algorithm, and the size of a shard in bytes; 0 if files are hashed as a whole."""
    method, algorithm = serialization["method"], serialization["hash_type"]
    if algorithm not in _HASHES:
        raise Untrusted(
            f"{printable(name)} signs digests by {printable(str(algorithm))[:40]!r}",
            hint=f"lading computes {' and '.join(_HASHES)}; {_AGAIN}",
        )
    if algorithm == "blake3" and find_spec("blake3") is None:
        # Before anything is fetched that could not be checked.
        raise Untrusted(f"{printable(name)} signs digests by blake3", hint="pip install 'lading[blake3]'")
    if method == "files":
        return algorithm, 0
    if method != "shards":
        raise Untrusted(f"{printable(name)} signs by the method {printable(str(method))[:40]!r}", hint=_AGAIN)
    # Some writers write every number as 1e9 or 8.0.
    size = serialization["shard_size"]
    if isinstance(size, bool) or not 1 <= size <= MOST_BYTES or size != int(size):
        raise ValueError("shard_size")
    return algorithm, int(size)


def _resources(items: list[Mapping[str, Any]], tagged: str, algorithm: str) -> Iterator[_Resource]:
    if not isinstance(items, list) or not items:
        raise ValueError("resources")
    for item in items:
        if item["algorithm"] != tagged:
            raise ValueError("algorithm")
        yield _Resource(_text(item["name"]), Digest.parse(f"{algorithm}:{_text(item['digest'])}").value)


def _check_root(resources: Iterable[_Resource], expected: object, name: str) -> None:
    running = hashlib.sha256()
    for resource in resources:
        running.update(bytes.fromhex(resource.value))
    if running.hexdigest() != expected:
        raise _no_statement(name, "the digest of its subject is not that of its files")


def _whole(resources: Iterable[_Resource], algorithm: str) -> Iterator[SignedFile]:
    for resource in resources:
        if resource.name == ".":
            raise ValueError("a single file was signed, whose name is not: sign the folder that it is in")
        yield SignedFile(resource.name, Digest(algorithm, resource.value))


def _from_shards(resources: Iterable[_Resource], algorithm: str, shard_bytes: int) -> Iterator[SignedFile]:
    """Each file with the digest of its shards' digests, which lading computes while the file is received."""
    shards: dict[str, list[tuple[int, int, str]]] = {}
    for resource in resources:
        match = _SHARD.fullmatch(resource.name)
        if match is None:
            raise ValueError("a resource is no shard")
        shards.setdefault(match["path"], []).append((int(match["start"]), int(match["end"]), resource.value))
    for path, parts in shards.items():
        position = 0
        for start, end, _ in sorted(parts):
            # Every shard but the last must have the full size, without gaps or overlaps.
            if start != position or start % shard_bytes or not start < end <= min(start + shard_bytes, MOST_BYTES):
                raise ValueError("shards have gaps, or overlap")
            position = end
        values = [value for _, _, value in sorted(parts)]
        yield SignedFile(
            path, _composite(algorithm, values, [end - start for start, end, _ in sorted(parts)]), position
        )


def _composite(algorithm: str, values: list[str], sizes_bytes: list[int]) -> Digest:
    if len(values) == 1:
        return Digest(algorithm, values[0])
    running = new_hash(algorithm)
    running.update(memoryview(b"".join(map(bytes.fromhex, values))))
    return Digest(algorithm, running.hexdigest(), tuple(sizes_bytes))


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise TypeError(value)
    return value


def _no_statement(name: str, why: str) -> Untrusted:
    return Untrusted(f"{printable(name)} cannot be used: {why}", hint=_AGAIN)
