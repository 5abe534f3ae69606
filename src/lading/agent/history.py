"""The record of a delivery, which the next process reads: a small file beside its versions.

    {"format": 1, "loaded": KEY, "history": [{"key", "version", "since_s"}, …], "refused": {KEY: {…}}, "seen": {KEY: …}}

Times are Unix time.  A file that cannot be read counts as missing: the folders show which version is in place.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

from lading.system.disk import disk_error, write_whole

FORMAT = 1
_MOST = 100


class Refusal(NamedTuple):
    """A version that was refused: how often, and until when it is not tried again."""

    times: int
    until_s: float
    why: str


class Past(NamedTuple):
    """A version that was put in place."""

    key: str
    version: str
    since_s: float


class Record(NamedTuple):
    """The record: ``loaded`` is the version that the model server has loaded, ``history`` begins with the newest."""

    loaded: str = ""
    history: tuple[Past, ...] = ()
    refused: Mapping[str, Refusal] = MappingProxyType({})
    seen: Mapping[str, float] = MappingProxyType({})

    def switched(self, key: str, version: str, now_s: float) -> "Record":
        """The record after a version was put in place."""
        others = tuple(past for past in self.history if past.key != key)
        return self._replace(history=(Past(key, version, now_s), *others)[:_MOST])

    def refusing(self, key: str, refusal: Refusal) -> "Record":
        """The record after a version was refused; it keeps only the last refusals."""
        others = {known: value for known, value in self.refused.items() if known != key}
        return self._replace(refused=dict([*others.items(), (key, refusal)][-_MOST:]))

    def seeing(self, key: str, now_s: float) -> "Record":
        """The record after the origin offered a version."""
        return self if key in self.seen else self._replace(seen=dict([*self.seen.items(), (key, now_s)][-_MOST:]))


def read_record(path: Path) -> Record:
    """Read the record in this file; an empty record if the file is missing or cannot be read."""
    try:
        data = json.loads(path.read_bytes())
        if data["format"] != FORMAT:
            return Record()
        return Record(
            loaded=str(data["loaded"]),
            history=tuple(
                Past(str(each["key"]), str(each["version"]), float(each["since_s"])) for each in data["history"]
            ),
            refused={
                str(key): Refusal(int(each["times"]), float(each["until_s"]), str(each["why"]))
                for key, each in data["refused"].items()
            },
            seen={str(key): float(since_s) for key, since_s in data["seen"].items()},
        )
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return Record()


def write_record(path: Path, record: Record) -> None:
    """Replace the file in one step."""
    data: dict[str, Any] = {
        "format": FORMAT,
        "loaded": record.loaded,
        "history": [past._asdict() for past in record.history],
        "refused": {key: refusal._asdict() for key, refusal in record.refused.items()},
        "seen": dict(record.seen),
    }
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_whole(path, [json.dumps(data, indent=1), "\n"])
    except OSError as error:
        raise disk_error(error, path) from error
