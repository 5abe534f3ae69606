"""Asking the checks of rollouts: GETs of pods and of allowed URLs, and queries of Prometheus.

Whoever may write a ModelRollout decides what is asked, so it is bounded: a GET without credentials, of a pod of the
rollout's own service, or of what the controller's own configuration allows.  No redirect is followed; of an answer to a
GET, only the status counts; every request has a deadline.
"""

import ipaddress
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from http import HTTPStatus
from typing import NamedTuple
from urllib.parse import urlencode

from lading.controller.agenda import Agenda
from lading.errors import LadingError, Unavailable, lading_error
from lading.model.uri import redact
from lading.network.client import HttpClient
from lading.retry import Clock, Retry, Run, SystemClock
from lading.rollout.verdict import FAILURES, Check, HttpCheck, QueryCheck, Verdict, of_samples, of_status, worst
from lading.settings.controller import read_controller
from lading.settings.limits import Limits, Network
from lading.settings.settings import Settings
from lading.system.threads import start_daemon
from lading.text.json_xml import read_json
from lading.text.printable import printable

# The time between two rounds.
_AGAIN_S = 10.0
_NEVER = float("inf")
# The pods that each check asks in one round.
_MOST_PODS = 3
_MOST_ANSWER_BYTES = 256 << 10
_MOST_SAID = 200
_NOT_YET = Verdict("unknown", "its checks are not asked yet")


class Asked(NamedTuple):
    """The question of a rollout: its checks, and the pin and the step that they are to judge."""

    checks: tuple[Check, ...]
    pin: str
    step: int = 0


class _Known(NamedTuple):
    """The last verdict on a question, how often in a row it failed, the pods to ask, and when it may be asked again."""

    asked: Asked
    addresses: tuple[str, ...] = ()
    verdict: Verdict = _NOT_YET
    failures: int = 0
    again_s: float = 0.0


class Checks:
    """The last verdict on each rollout's question.

    One thread calls the methods, others work on the ``agenda``.  ``answered`` is called after each verdict that differs
    from the one before.
    """

    def __init__(self, load: Callable[[], Settings], clock: Clock, answered: Callable[[], None]) -> None:
        self._load, self._now, self._answered = load, clock.now, answered
        self._lock = threading.Lock()
        self._known: dict[str, _Known] = {}
        self.agenda = Agenda(self._ask, clock.now, ("passed", "failed", "unknown"))

    def refusal(self, checks: tuple[Check, ...]) -> str:
        """Why these checks cannot be asked, or ""."""
        if not checks:
            return ""
        try:
            allowed = read_controller(self._load())
        except LadingError:
            # The configuration is being written: no reason to give up a rollout.
            return ""
        for check in checks:
            if isinstance(check, QueryCheck) and not allowed.prometheus:
                return f"check {check.name}: the controller's configuration names no controller.prometheus"
            if isinstance(check, HttpCheck) and check.url and not allowed.allows(check.url):
                return f"check {check.name}: controller.urls does not allow {printable(redact(check.url))}"
        return ""

    def verdict(self, rollout: str, asked: Asked, addresses: tuple[str, ...]) -> Verdict:
        """The last verdict on this question; it is asked in rounds for as long as this is called."""
        with self._lock:
            known = self._known.get(rollout)
            if known is None or known.asked != asked:
                known = _Known(asked)
            is_due = self._now() >= known.again_s
            again_s = _NEVER if is_due else known.again_s
            self._known[rollout] = known._replace(addresses=addresses, again_s=again_s)
        if is_due:
            self.agenda.put(rollout)
        return known.verdict

    def last(self, rollout: str) -> Verdict:
        """The last verdict on a rollout's candidate."""
        with self._lock:
            known = self._known.get(rollout)
            return known.verdict if known else _NOT_YET

    def forget(self, rollout: str) -> None:
        """Forget the verdict on a rollout's candidate: if the same version comes again, it is asked again."""
        with self._lock:
            self._known.pop(rollout, None)

    def keep(self, rollouts: set[str]) -> None:
        """Forget the verdicts of all other rollouts."""
        with self._lock:
            self._known = {name: known for name, known in self._known.items() if name in rollouts}

    def _ask(self, rollout: str) -> str:
        """Ask all checks of a rollout once; returns the word of the verdict."""
        with self._lock:
            begun = self._known.get(rollout)
        if begun is None:
            return ""
        found = self._found(rollout.partition("/")[0], begun)
        with self._lock:
            known = self._known.get(rollout)
            if known is None or known.asked != begun.asked:
                return found.word
            failures = {"failed": known.failures + 1, "unknown": known.failures, "passed": 0}[found.word]
            shown = Verdict("unknown", found.why) if found.word == "failed" and failures < FAILURES else found
            again_s = self._now() + _AGAIN_S
            self._known[rollout] = known._replace(verdict=shown, failures=failures, again_s=again_s)
        if shown != known.verdict:
            self._answered()
        return found.word

    def _found(self, namespace: str, known: _Known) -> Verdict:
        addresses = sorted(known.addresses)[:_MOST_PODS]
        try:
            settings = self._load()
            return worst([_verdict(check, namespace, addresses, settings) for check in known.asked.checks])
        except Exception as error:  # noqa: BLE001 - one rollout's defect must not end the verdicts on all others
            return Verdict("unknown", lading_error(error).message)


def may_be_asked(address: str) -> bool:
    """Whether ``address`` can be a pod's own: not this pod, nor what only its node can reach, such as its metadata."""
    try:
        found = ipaddress.ip_address(address)
    except ValueError:
        return False
    found = getattr(found, "ipv4_mapped", None) or found
    return not (found.is_loopback or found.is_link_local or found.is_multicast or found.is_unspecified)


def _verdict(check: Check, namespace: str, addresses: Sequence[str], settings: Settings) -> Verdict:
    if isinstance(check, QueryCheck):
        return _queried(check, namespace, settings)
    if check.url:
        allowed = read_controller(settings).allows(check.url)
        return _got(check, check.url, settings.network) if allowed else Verdict("unknown", "it may not be asked")
    urls = [_url(address, check) for address in addresses if may_be_asked(address)]
    if not urls:
        return Verdict("unknown", f"check {check.name}: there is no pod that can be asked")
    return worst([_got(check, url, Network()) for url in urls])


def _url(address: str, check: HttpCheck) -> str:
    host = f"[{address}]" if ":" in address else address
    return f"http://{host}:{check.port}{check.path}"


def _got(check: HttpCheck, url: str, network: Network) -> Verdict:
    """The verdict on a GET; a server that does not answer has failed it."""
    try:
        with _client(network, check.timeout_s) as client, client.open("GET", url, redirects=0) as answer:
            return of_status(check, printable(redact(url)), answer.head.status)
    except LadingError as error:
        return Verdict("failed", f"check {check.name}: {error.message}")


def _queried(check: QueryCheck, namespace: str, settings: Settings) -> Verdict:
    """The verdict on a query; a Prometheus that does not answer says nothing of the candidate."""
    base, _, query = read_controller(settings).prometheus_for(namespace).partition("?")
    words = "&".join(filter(None, (query, urlencode({"query": check.query, "timeout": f"{check.timeout_s:g}s"}))))
    try:
        with (
            _client(settings.network, check.timeout_s) as client,
            client.open("GET", f"{base.rstrip('/')}/api/v1/query?{words}", redirects=0) as answer,
        ):
            body = answer.read(_MOST_ANSWER_BYTES)
            if answer.head.status != HTTPStatus.OK:
                return Verdict("unknown", f"check {check.name}: Prometheus answered {answer.head.status}{_said(body)}")
        return of_samples(check, _samples(body))
    except LadingError as error:
        return Verdict("unknown", f"check {check.name}: {error.message}")


@contextmanager
def _client(network: Network, timeout_s: float) -> Iterator[HttpClient]:
    """A client whose requests end after ``timeout_s``, also if the server sends a byte now and then."""
    run = Run(threading.Event(), SystemClock())
    client = HttpClient(network, Limits(connect_s=timeout_s, stall_s=timeout_s), Retry(run, attempts=1))
    done = threading.Event()
    start_daemon("check-deadline", partial(_close_after, client, done, timeout_s))
    try:
        yield client
    finally:
        done.set()
        client.close()


def _close_after(client: HttpClient, done: threading.Event, timeout_s: float) -> None:
    if not done.wait(timeout_s):
        client.close()


def _samples(body: bytes) -> list[float]:
    """The values of an instant query's answer, a vector or a scalar.

    https://prometheus.io/docs/prometheus/latest/querying/api/#instant-queries
    """
    try:
        data = read_json(body)["data"]
        pairs = [data["result"]] if data["resultType"] == "scalar" else [each["value"] for each in data["result"]]
        return [float(value) for _, value in pairs]
    except (KeyError, TypeError, ValueError) as error:
        raise Unavailable("Prometheus did not answer with a vector or a scalar") from error


def _said(body: bytes) -> str:
    """The error in an answer of Prometheus, for a message."""
    try:
        document = read_json(body)
    except ValueError:
        return ""
    said = document.get("error") if isinstance(document, dict) else None
    return f": {printable(said)[:_MOST_SAID]}" if isinstance(said, str) else ""
