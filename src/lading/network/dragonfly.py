"""Files by Dragonfly: the dfdaemon of this node has them from peers, or from the origin once for all (docs/scale.md).

It is an HTTP proxy that is asked in plain text, for https as well: it speaks TLS with the origin itself, and needs what
authorises the request.  What its headers mean: https://d7y.io/docs/reference/configuration/client/dfdaemon/.
"""

import hashlib
import math
import threading
from collections.abc import Callable

from lading.errors import LadingError, NotRelayed
from lading.events import RelayFailed
from lading.model.listing import ListedFile
from lading.model.uri import ModelURI, redact
from lading.network.answer import Answer, retry_after_s, status_error
from lading.retry import Run
from lading.text.printable import printable

Headers = list[tuple[str, str]]

# After a failure, files come from their origin for so long: one node that tries in vain must not cost a minute per range.
_REST_S = 30.0
_LARGE_BYTES = 1 << 30


class Relays:
    """The dfdaemons that a run has asked in vain, and when it may ask them again.  Safe from any thread."""

    def __init__(self, run: Run) -> None:
        self._run = run
        self._lock = threading.Lock()
        self._again_s: dict[str, float] = {}

    def ask(self, file: ListedFile, send: Callable[[str, Headers], Answer], url: str) -> Answer | None:
        """The answer of the file's relay to ``send``, which adds these headers; None for a file without one.

        ``NotRelayed`` where the origin must be asked: if it refuses, it says why only when it is asked itself.  If it asks for
        a pause, that is raised: it does not want to be asked by everybody now.
        """
        if file.relay is None:
            return None
        if self._run.clock.now() < self._again_s.get(file.relay.url, -math.inf):
            raise NotRelayed(f"{redact(file.relay.url)} rests")
        try:
            answer = send(file.relay.url, task_headers(file, url))
        except LadingError as error:
            # Whoever ends the run ends its connections.
            self._run.check(f"the request for {printable(file.path)}")
            self._failed(file.relay.url, error.message)
            raise NotRelayed(error.message) from error
        head = answer.head
        if head.status in (200, 206):
            return answer
        with answer:
            if head.get("x-dragonfly-error-type") != "backend":
                self._failed(file.relay.url, f"it answered {head.status}")
            elif retry_after_s(head):
                raise status_error(head, redact(url))
        raise NotRelayed(f"{redact(file.relay.url)} answered {head.status}")

    def _failed(self, relay: str, why: str) -> None:
        with self._lock:
            is_first = relay not in self._again_s
            self._again_s[relay] = self._run.clock.now() + _REST_S
        if is_first:
            self._run.listener(RelayFailed(redact(relay), why))


def task_headers(file: ListedFile, url: str) -> Headers:
    """The headers that ask dfdaemon for ``file``, and if a part of it is asked for, to fetch the rest meanwhile.

    Its task, by which peers find each other, is named by the bytes and not by the URL: a file that is replaced is another
    one, and mirrors and signed links share one.
    """
    piece = "16MiB" if (file.size_bytes or 0) >= _LARGE_BYTES else "4MiB"
    name = file.relay.name if file.relay else ""
    if not name:
        version = f"{ModelURI.parse(url).identity()}\n{file.validator}\n{file.size_bytes}"
        name = hashlib.sha256(version.encode("utf-8", "surrogateescape")).hexdigest()
    return [
        ("X-Dragonfly-Use-P2P", "true"),
        ("X-Dragonfly-Content-For-Calculating-Task-ID", f"{name} in pieces of {piece}"),
        ("X-Dragonfly-Piece-Length", piece),
        ("X-Dragonfly-Prefetch", "true"),
    ]
