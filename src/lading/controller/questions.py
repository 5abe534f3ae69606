"""What the names stand for now: one question for all services that follow the same.

A question is the cheapest one that can tell: the registry is asked first, and while it names the same version and the
same digests, and the source has one answer for all of a model (a commit, a manifest's digest), nothing is listed.
"""

import hashlib
import queue
import random
import tempfile
import threading
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import NamedTuple

from lading.delivery.request import Request, query_for
from lading.delivery.resolve import list_files, open_found, resolve
from lading.errors import LadingError, Unsupported, UsageError, internal_error
from lading.events import ignore
from lading.model.reference import SCHEMES
from lading.model.uri import ModelURI
from lading.registries.registry import Resolution
from lading.rollout.state import Version
from lading.session import Session
from lading.settings.settings import Settings
from lading.sources.source import FindsPin

_JITTER = 0.1
_NEVER = float("inf")
# Whoever may change a service chooses its URI: not a file of this machine, and no host of the cluster's network.
_SCHEMES = {*SCHEMES, "s3", "gs", "hf", "modelscope"}


class Answer(NamedTuple):
    """What a name stood for when that could last be told, and why it could not be told the last time, or "".

    ``resolved`` is what the source calls it, ``said`` a digest of what a registry said.
    """

    version: Version | None = None
    error: str = ""
    resolved: str = ""
    said: str = ""


class _Question(NamedTuple):
    every_s: float
    due_s: float


class Questions:
    """Asks in threads, which run ``serve``; everything else is called by one thread.

    ``answered`` is called after each answer that says something else than the one before, with its name.
    """

    def __init__(self, load: Callable[[], Settings], now: Callable[[], float], answered: Callable[[str], None]) -> None:
        self._load, self._now, self._answered = load, now, answered
        self._lock = threading.Lock()
        self._questions: dict[str, _Question] = {}
        self._answers: dict[str, Answer] = {}
        self._due: queue.SimpleQueue[str] = queue.SimpleQueue()
        self.asked: dict[str, int] = {"answered": 0, "failed": 0}

    def follow(self, wanted: Mapping[str, float]) -> None:
        """From now on, ask these names, each so often; a new one at once."""
        with self._lock:
            now_s = self._now()
            old, self._questions = self._questions, {}
            for name, every_s in wanted.items():
                was = old.get(name)
                due_s = min(was.due_s, now_s + every_s) if was and was.due_s != _NEVER else _NEVER if was else now_s
                self._questions[name] = _Question(every_s, due_s)
            self._answers = {name: answer for name, answer in self._answers.items() if name in wanted}

    def answer(self, name: str) -> Answer | None:
        """The last answer; None before the first one."""
        with self._lock:
            return self._answers.get(name)

    def hurry(self) -> None:
        """Let everything be due now."""
        with self._lock:
            now_s = self._now()
            for name, question in self._questions.items():
                if question.due_s != _NEVER:
                    self._questions[name] = question._replace(due_s=now_s)

    def begin(self) -> float:
        """Let the threads ask what is due; seconds until the next one is."""
        with self._lock:
            now_s = self._now()
            for name in [name for name, question in self._questions.items() if question.due_s <= now_s]:
                self._questions[name] = self._questions[name]._replace(due_s=_NEVER)
                self._due.put(name)
            return max(min((each.due_s for each in self._questions.values()), default=_NEVER) - now_s, 0.0)

    def serve(self) -> None:
        """Ask what is due, one at a time, for ever."""
        while True:
            self.ask(self._due.get())

    def ask_due(self) -> None:
        """Ask what is due, and return."""
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


def _ask(name: str, before: Answer, session: Session) -> Answer:
    uri = ModelURI.parse(name)
    if uri.scheme.lower() not in _SCHEMES:
        raise Unsupported(
            f"the controller does not ask {uri.redacted()}", hint=f"it asks {', '.join(sorted(_SCHEMES))}"
        )
    if session.settings.lock or session.settings.lock_text:
        raise UsageError("the controller asks what names stand for now, and a lock file is set")
    # Sources that need room for a moment take it beside that.
    request = Request(name, Path(tempfile.gettempdir(), "model"))
    query = query_for(request, session.settings)
    resolution = resolve(query, session)
    said = _said(resolution)
    source = open_found(request, resolution, session)
    found = source.find_pin() if before.version and before.said == said and isinstance(source, FindsPin) else None
    if found is not None and found.redacted() == before.resolved:
        return before._replace(error="")
    listed = list_files(request, query, resolution, session).listed
    return Answer(Version(listed.pin, listed.version), "", listed.resolved, said)


def _said(resolution: Resolution) -> str:
    """A digest of what a registry said that the pin depends on."""
    parts: Iterable[str] = (
        str(resolution.uri),
        resolution.registry,
        resolution.version,
        *(f"{path}\0{digest}" for path, digest in sorted(resolution.digests.items())),
    )
    return hashlib.sha256("\0\0".join(parts).encode("utf-8", "surrogatepass")).hexdigest()


def _next_in_s(every_s: float) -> float:
    """Jitter keeps the names from being asked as one."""
    return every_s * (1 + _JITTER * random.uniform(-1, 1))  # noqa: S311 - not a secret
