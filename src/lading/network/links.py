"""Links that hold for some minutes: of servers that do not send a file themselves, but say where it is had with a signature."""

import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import NamedTuple

from lading.errors import TryAtOnce, Unavailable
from lading.model.listing import ListedFile
from lading.model.origin import split_url
from lading.network.answer import Answer
from lading.network.client import Headers, HttpClient

# What a storage service says to a signature whose time is over.
_EXPIRED = (400, 401, 403, 404, 410)
_EXPIRES_EARLY_S = 10.0
_LOCKS = 64


class Link(NamedTuple):
    """A URL for one file, the headers for it, and its end (Unix time; None if unknown)."""

    url: str
    headers: Headers
    expires_at_s: float | None = None

    def ends_soon(self) -> bool:
        """Whether it may have expired when its request arrives."""
        return self.expires_at_s is not None and self.expires_at_s - time.time() <= _EXPIRES_EARLY_S


class Links:
    """The links to the files of one source, each asked for when it is needed, and again once it has ended."""

    def __init__(self, http: HttpClient) -> None:
        self._http = http
        self._links: dict[str, Link] = {}
        # One for several names: there may be 100,000 of those.
        self._asking = [threading.Lock() for _ in range(_LOCKS)]

    def keep(self, links: Mapping[str, Link]) -> None:
        """Use these links from now on."""
        self._links.update(links)

    def open(self, name: str, find: Callable[[], Link], headers: Headers, *, what: str) -> Answer:
        """The answer under the link to ``name``, which ``find`` gives; one attempt.

        A link that was kept may have ended before it said so: if it is refused, another one is to be tried at once.
        """
        link, is_new = self._link(name, find)
        answer = self._http.open("GET", link.url, [*link.headers, *headers])
        if not is_new and answer.head.status in _EXPIRED:
            with answer:
                # Unless another thread has seen to it.
                if self._links.get(name) is link:
                    self._links.pop(name, None)
            raise TryAtOnce(f"{what}: its link has expired")
        return answer

    def _link(self, name: str, find: Callable[[], Link]) -> tuple[Link, bool]:
        """The link to use, and whether it was asked for just now: by one thread, which all others that need it wait for."""
        with self._asking[hash(name) % len(self._asking)]:
            link = self._links.get(name)
            if link is not None and not link.ends_soon():
                return link, False
            link = self._links[name] = find()
            return link, True


class Redirects:
    """The known redirects for the files of one source.

    The ranges of one file share one redirect, until its signature is refused or a transfer fails: such
    servers limit how often they are asked, and each question costs a round trip.
    """

    def __init__(self, http: HttpClient) -> None:
        self._http = http
        self._signed: dict[str, str] = {}

    @contextmanager
    def open(self, file: ListedFile, url: str, headers: Headers, credentials: Headers) -> Iterator[Answer]:
        """The answer of whoever has the file; ``credentials`` go to the host of ``url`` only, and to a relay for it."""
        relayed = self._http.open_by_relay(file, url, [*credentials, *headers])
        if relayed is not None:
            with relayed:
                yield relayed
            return
        signed = self._signed.get(file.path)
        if signed is not None:
            try:
                with self._http.open("GET", signed, headers) as answer:
                    if answer.head.status not in _EXPIRED:
                        yield answer
                        return
            except Unavailable:
                # Perhaps it is that host which is away: the next attempt asks who has the file now.
                self._signed.pop(file.path, None)
                raise
            self._signed.pop(file.path, None)
        with self._http.open("GET", url, [*credentials, *headers]) as answer:
            # A place at the same host may want the credentials: it is asked for each time.
            if answer.head.status == 206 and split_url(answer.url)[0].bare != split_url(url)[0].bare:
                self._signed[file.path] = answer.url
            yield answer
