"""Servers that do not send a file themselves, but say by a redirect who has it, with a signature for some minutes."""

from collections.abc import Iterator
from contextlib import contextmanager

from lading.errors import Unavailable
from lading.model.listing import ListedFile
from lading.model.origin import split_url
from lading.network.client import Answer, Headers, HttpClient

# What a storage service says to a signature whose time is over.
_EXPIRED = (400, 401, 403, 404, 410)


class Redirects:
    """Where the files of one source are, as far as it is known.

    The ranges of one file share one redirect, until its signature is refused or a transfer fails: such
    servers limit how often they are asked, and each question costs a round trip.
    """

    def __init__(self, http: HttpClient) -> None:
        self._http = http
        self._signed: dict[str, str] = {}

    @contextmanager
    def open(self, file: ListedFile, url: str, headers: Headers, credentials: Headers) -> Iterator[Answer]:
        """The answer of whoever has the file; ``credentials`` go to the host of ``url`` only."""
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
