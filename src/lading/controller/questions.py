"""The versions that names stand for now: one question for all services that follow the same name.

The files of a model are not listed while cheaper answers stay the same: the registry's version and digests, and the
source's one identifier for all of the model (a commit, a manifest's digest).
"""

import hashlib
import queue
import random
import tempfile
import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from lading.delivery.request import Request, query_for
from lading.delivery.resolve import list_files, open_found, resolve
from lading.errors import LadingError, Unsupported, UsageError, internal_error
from lading.events import ignore
from lading.model.uri import ModelURI
from lading.registries.registry import Resolution
from lading.rollout.policy import FOLLOWED
from lading.rollout.state import Version
from lading.session import Session
from lading.settings.settings import Settings
from lading.sources.source import FindsPin

_JITTER = 0.1
_NEVER = float("inf")


class Answer(NamedTuple):
    """The last known version of a name; ``error`` is why the last question failed, or "".

    ``resolved`` is the source's identifier of the version, ``said`` a digest of the registry's answer.
    """

    version: Version | None = None
    error: str = ""
    resolved: str = ""
    said: str = ""


class _Question(NamedTuple):
    every_s: float
    due_s: float


class Questions:
    """Asks names in threads that run ``serve``; one other thread calls everything else.

    ``answered`` is called with the name after each answer that differs from the one before.
    """

    def __init__(self, load: Callable[[], Settings], now: Callable[[], float], answered: Callable[[str], None]) -> None:
        self._load, self._now, self._answered = load, now, answered
        self._lock = threading.Lock()
        self._questions: dict[str, _Question] = {}
        self._answers: dict[str, Answer] = {}
        self._due: queue.SimpleQueue[str] = queue.SimpleQueue()
        self.asked: dict[str, int] = {"answered": 0, "failed": 0}

    def follow(self, wanted: Mapping[str, float]) -> None:
        """Ask these names from now on, each at its interval in seconds; a new name at once."""
        with self._lock:
            now_s = self._now()
            old, self._questions = self._questions, {}
            for name, every_s in wanted.items():
                was = old.get(name)
                due_s = min(was.due_s, now_s + every_s) if was and was.due_s != _NEVER else _NEVER if was else now_s
                self._questions[name] = _Question(every_s, due_s)
            self._answers = {name: answer for name, answer in self._answers.items() if name in wanted}

    def answer(self, names: str) -> Answer | None:
        """The last answer for a name, or for several in lines; None before each has its first one."""
        with self._lock:
            found = [self._answers.get(name) for name in names.split("\n")]
        return _together([answer for answer in found if answer]) if all(found) else None

    def hurry(self) -> None:
        """Make every name due now."""
        with self._lock:
            now_s = self._now()
            for name, question in self._questions.items():
                if question.due_s != _NEVER:
                    self._questions[name] = question._replace(due_s=now_s)

    def begin(self) -> float:
        """Give the names that are due to the threads; returns the seconds until the next one is due."""
        with self._lock:
            now_s = self._now()
            for name in [name for name, question in self._questions.items() if question.due_s <= now_s]:
                self._questions[name] = self._questions[name]._replace(due_s=_NEVER)
                self._due.put(name)
            return max(min((each.due_s for each in self._questions.values()), default=_NEVER) - now_s, 0.0)

    def serve(self) -> None:
        """Ask the names that are due, one at a time, for ever."""
        while True:
            self.ask(self._due.get())

    def ask_due(self) -> None:
        """Ask the names that are due now, then return."""
        while True:
            try:
                self.ask(self._due.get_nowait())
            except queue.Empty:
                return

    def ask(self, name: str) -> None:
        """Ask one name now."""
        before = self.answer(name) or Answer()
        try:
            with Session(self._load(), ignore) as session:
                after = _ask(name, before, session)
        except LadingError as error:
            after = before._replace(error=f"error[{error.code}]: {error.message}")
        except Exception as error:  # noqa: BLE001 - one name's defect must not end the answers to all others
            after = before._replace(error=internal_error(error).message)
        with self._lock:
            self.asked["failed" if after.error else "answered"] += 1
            question = self._questions.get(name)
            if question is None:
                return
            self._answers[name] = after
            self._questions[name] = question._replace(due_s=self._now() + _next_in_s(question.every_s))
        if after != before:
            self._answered(name)


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
        raise UsageError("the controller asks what names stand for now, and a lock file is set")
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
    """Seconds to the next question; jitter spreads the questions over time."""
    return every_s * (1 + _JITTER * random.uniform(-1, 1))  # noqa: S311 - not a secret
