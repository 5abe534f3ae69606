"""The versions that names stand for now: one question for all services that follow the same name.

The files of a model are not listed while cheaper answers stay the same: the registry's version and digests, and the
source's one identifier for all of the model (a commit, a manifest's digest).
"""

import hashlib
import random
import tempfile
import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from lading.controller.agenda import Agenda
from lading.delivery.request import Request, query_for
from lading.delivery.resolve import list_files, open_found, resolve
from lading.errors import Unsupported, UsageError, lading_error
from lading.events import ignore
from lading.model.uri import ModelURI
from lading.registries.registry import Resolution
from lading.rollout.policy import FOLLOWED
from lading.rollout.state import Version
from lading.session import Session
from lading.settings.settings import Settings
from lading.sources.source import FindsPin

_JITTER = 0.1


class Answer(NamedTuple):
    """The last known version of a name; ``error`` is why the last question failed, or "".

    ``resolved`` is the source's identifier of the version, ``said`` a digest of the registry's answer.
    """

    version: Version | None = None
    error: str = ""
    resolved: str = ""
    said: str = ""


class Questions:
    """The last answer for each name that is asked, and when it is asked again.

    One thread calls the methods, others work on the ``agenda``.  ``answered`` is called after each answer that differs
    from the one before.
    """

    def __init__(self, load: Callable[[], Settings], now: Callable[[], float], answered: Callable[[], None]) -> None:
        self._load, self._answered = load, answered
        self._lock = threading.Lock()
        self._every_s: Mapping[str, float] = {}
        self._answers: dict[str, Answer] = {}
        self.agenda = Agenda(self._ask, now, ("answered", "failed"))

    def follow(self, wanted: Mapping[str, float]) -> None:
        """Ask these names from now on, each at its interval in seconds; a new name at once."""
        with self._lock:
            old, self._every_s = self._every_s, wanted
            self._answers = {name: answer for name, answer in self._answers.items() if name in wanted}
        for name, every_s in wanted.items():
            if name not in old:
                self.agenda.put(name)
            elif every_s < old[name]:
                self.agenda.put(name, every_s)

    def answer(self, names: Sequence[str]) -> Answer | None:
        """The last answer for these names together; None before each of them has its first one."""
        with self._lock:
            found = [self._answers[name] for name in names if name in self._answers]
        return _together(found) if found and len(found) == len(names) else None

    def hurry(self) -> None:
        """Make every name due now; one that is being asked is asked once more."""
        for name in self._every_s:
            self.agenda.put(name)

    def _ask(self, name: str) -> str:
        if name not in self._every_s:
            return ""
        before = self.answer([name]) or Answer()
        try:
            with Session(self._load(), ignore) as session:
                after = _ask(name, before, session)
        except Exception as error:  # noqa: BLE001 - one name's defect must not end the answers to all others
            failure = lading_error(error)
            after = before._replace(error=f"error[{failure.code}]: {failure.message}")
        with self._lock:
            every_s = self._every_s.get(name)
            if every_s is not None:
                self._answers[name] = after
        if every_s is not None:
            self.agenda.put(name, _next_in_s(every_s))
            if after != before:
                self._answered()
        return "failed" if after.error else "answered"


def _together(answers: Sequence[Answer]) -> Answer:
    if len(answers) == 1:
        return answers[0]
    versions = [answer.version for answer in answers if answer.version]
    error = next((answer.error for answer in answers if answer.error), "")
    return Answer(Version.of(versions) if len(versions) == len(answers) else None, error)


def _ask(name: str, before: Answer, session: Session) -> Answer:
    uri = ModelURI.parse(name)
    if uri.scheme.lower() not in FOLLOWED:
        raise Unsupported(
            f"the controller does not ask {uri.redacted()}", hint=f"it asks {', '.join(sorted(FOLLOWED))}"
        )
    if session.settings.lock or session.settings.lock_text:
        raise UsageError(
            "the controller asks what names stand for now, and a lock file is set",
            hint="unset LADING_LOCK and LADING_LOCK_TEXT",
        )
    # Sources that need temporary files make them beside this path.
    request = Request(name, Path(tempfile.gettempdir(), "model"))
    query = query_for(request, session.settings)
    resolution = resolve(query, session)
    said = _said(resolution, session.settings)
    source = open_found(request, resolution, session)
    found = source.find_pin() if before.version and before.said == said and isinstance(source, FindsPin) else None
    if found is not None and found.redacted() == before.resolved:
        return before._replace(error="")
    listed = list_files(request, query, resolution, session).listed
    signer = listed.signature.signer if listed.signature else ""
    return Answer(Version(listed.pin, listed.version, signer), "", listed.resolved, said)


def _said(resolution: Resolution, settings: Settings) -> str:
    """A digest of the parts of a registry's answer on which the pin depends, and of the rules that find its signer."""
    parts: Iterable[str] = (
        str(resolution.uri),
        resolution.registry,
        resolution.version,
        repr(settings.trust),
        *(f"{path}\0{digest}" for path, digest in sorted(resolution.digests.items())),
    )
    return hashlib.sha256("\0\0".join(parts).encode("utf-8", "surrogatepass")).hexdigest()


def _next_in_s(every_s: float) -> float:
    """Seconds to the next question, at most ``every_s``; jitter spreads the questions over time."""
    return every_s * (1 - _JITTER * random.random())  # noqa: S311 - not a secret
