"""Telling the model server of a new version: by the Open Inference Protocol, a file, an HTTP call, or the agent's exit.

``load`` uses the repository extension of the protocol, which Triton, MLServer and KServe's own servers have
(https://github.com/kserve/open-inference-protocol/blob/main/specification/protocol/extension_model_repository.md):
the server loads the model again, and serves the version before until then.  Nothing is ever unloaded.
"""

import json
from http import HTTPStatus
from pathlib import Path
from typing import Any
from urllib.parse import quote

from lading.errors import Interrupted, NotAllowed, Unavailable, Unsupported, UsageError
from lading.model.origin import split_url
from lading.network.answer import leads_to
from lading.network.client import HttpClient
from lading.network.wire import Head
from lading.session import Session
from lading.settings.agent import OnChange
from lading.system.disk import disk_error, read_secret_file, write_whole
from lading.text.printable import printable

_CONNECT_S = 5.0
_LOOK_AGAIN_S = 0.5
_LIMIT_BYTES = 64 << 20
_SHOWN_CHARACTERS = 200


class Server:
    """The model server that ``on_change`` describes."""

    def __init__(self, on_change: OnChange, session: Session) -> None:
        self._on_change = on_change
        self._clock, self._stop = session.run.clock, session.run.stop
        # No proxy: it is on this machine or in this pod.  Loading may take minutes without a byte.
        self._http: HttpClient = session.http.direct(
            connect_s=_CONNECT_S, stall_s=max(on_change.ready_s, 1.0), retry=session.retry._replace(attempts=1)
        )

    def is_there(self) -> bool:
        """Whether the server can be told now; always true without ``load``.

        ``NotAllowed`` if it refuses the token; errors of the token's file are raised, too.
        """
        if not self._on_change.load:
            self._authorization()
            return True
        try:
            return self._ask("GET", "/v2/health/live")[0].status == HTTPStatus.OK
        except Unavailable:
            return False

    def tell(self, facts: dict[str, str]) -> None:
        """Tell it to take the version that is in place; raises if it does not."""
        on_change = self._on_change
        if on_change.load:
            self._load()
        elif on_change.touch:
            _write(Path(on_change.touch), facts)
        elif on_change.post:
            self._call("POST", on_change.post, facts, "the call")

    def _load(self) -> None:
        model = quote(self._on_change.model, safe="")
        self._call("POST", f"/v2/repository/models/{model}/load", {}, "loading")
        until_s = self._clock.now() + self._on_change.ready_s
        while self._ask("GET", f"/v2/models/{model}/ready")[0].status != HTTPStatus.OK:
            if self._clock.now() >= until_s:
                raise Unavailable(f"the server is not ready within {self._on_change.ready_s:g} s after loading")
            self._clock.wait(self._stop, _LOOK_AGAIN_S)
            self._check()
        if self._on_change.probe:
            self._call("POST", f"/v2/models/{model}/infer", dict(self._on_change.probe), "the probe")

    def _call(self, method: str, path: str, document: dict[str, Any], what: str) -> None:
        head, answer = self._ask(method, path, json.dumps(document).encode())
        if not 200 <= head.status < 300:
            location = leads_to(head)
            if self._on_change.token_file:
                # The answer may contain the token, in any form.
                answer, location = b"", ""
            said = printable(" ".join(answer[: 4 * _SHOWN_CHARACTERS].decode("utf-8", "replace").split()))
            raise Unsupported(
                f"the server answers {what} with {head.status}"
                + (location and f", to {location}, which is not followed"),
                hint=f"it says: {said[:_SHOWN_CHARACTERS]}" if said else "its log may say more",
            )

    def _ask(self, method: str, path: str, body: bytes = b"") -> tuple[Head, bytes]:
        url = path if "://" in path else self._on_change.load.rstrip("/") + path
        headers = [("Accept", "application/json")] + ([("Content-Type", "application/json")] if body else [])
        try:
            # No retry, whatever the status: a server that answers with 500 has decided.
            with self._http.open(method, url, [*headers, *self._authorization()], body=body, redirects=0) as answer:
                head, text = answer.head, answer.read(_LIMIT_BYTES)
        except Unavailable:
            # Perhaps this side closed the connection.
            self._check()
            raise
        if head.status in (HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN):
            wants = "another token than that in" if self._on_change.token_file else "a token: give it"
            raise NotAllowed(f"the server answers with {head.status}", hint=f"it may want {wants} on_change.token_file")
        return head, text

    def _authorization(self) -> list[tuple[str, str]]:
        """The header with the token, if there is one; its file is read each time, since it may have been rotated."""
        path = self._on_change.token_file
        if not path:
            return []
        token = read_secret_file(path)
        if not (token and token.isascii() and token.isprintable()):
            raise UsageError(f"{printable(path)} holds no bearer token", hint="it is one line of ASCII text")
        split_url(self._on_change.load or self._on_change.post)[0].refuse_in_clear("the token of on_change")
        return [("Authorization", f"Bearer {token}")]

    def _check(self) -> None:
        if self._stop.is_set():
            raise Interrupted("stopped while the server was told")


def _write(path: Path, facts: dict[str, str]) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_whole(path, [json.dumps(facts), "\n"])
    except OSError as error:
        raise disk_error(error, path) from error
