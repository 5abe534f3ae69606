"""What there is of one resource, and every change of it: list, then watch, and list anew when the server has forgotten.

https://kubernetes.io/docs/reference/using-api/api-concepts/#efficient-detection-of-changes.
"""

import random
import sys
from collections.abc import Callable
from functools import partial
from typing import NamedTuple

from lading.kubernetes.api_server import ApiServer, Change, Expired, Object, Resource
from lading.retry import Retry

# A watch that has ended goes on where it was; together, those of a fleet would come as one.
_PAUSE_S = 1.0


class Key(NamedTuple):
    """What an object of one resource is called; without a namespace, ``namespace`` is ""."""

    namespace: str
    name: str

    @classmethod
    def of(cls, thing: Object) -> "Key":
        return cls(thing["metadata"].get("namespace", ""), thing["metadata"]["name"])


class Followed(NamedTuple):
    """Who is told, in the thread of ``follow``: of each object that is there or has changed, of each that is gone, and of a list's end.

    An object that has not changed may be told again.
    """

    there: Callable[[Key, Object], None]
    gone: Callable[[Key], None]
    listed: Callable[[], None] = lambda: None


def follow(server: ApiServer, resource: Resource, namespace: str, followed: Followed, *, labels: str = "") -> None:
    """Tell until the run is stopped, which raises ``Interrupted``; "" is every namespace.

    A server that is away is waited for, however long.  Raises what waiting does not mend: ``NotFound`` if there is no
    such resource, ``NotAllowed`` if it may not be listed.
    """
    _Follower(server, resource, namespace, followed, labels).run()


class _Follower:
    def __init__(self, server: ApiServer, resource: Resource, namespace: str, followed: Followed, labels: str) -> None:
        self._followed = followed
        self._run = server.http.retry.run
        self._retry = Retry(self._run, attempts=sys.maxsize)
        self._what = f"watching {resource.shown(namespace)}"
        self._pages = partial(server.pages, resource, namespace, labels=labels, patiently=True)
        self._watch = partial(server.watch, resource, namespace, labels=labels)
        self._known: set[Key] = set()
        self._version = ""
        self._heard = 0

    def run(self) -> None:
        while True:
            try:
                self._list()
                while True:
                    self._retry.call(self._go_on, what=self._what, progress=lambda: self._heard)
                    self._run.wait(random.uniform(0, _PAUSE_S), self._what)  # noqa: S311 - not a secret
            except Expired:
                self._run.wait(random.uniform(0, _PAUSE_S), self._what)  # noqa: S311 - not a secret

    def _list(self) -> None:
        there = set()
        for page in self._pages():
            self._version = page.version
            for thing in page.objects:
                there.add(key := Key.of(thing))
                self._followed.there(key, thing)
        for key in self._known - there:
            self._followed.gone(key)
        self._known = there
        self._followed.listed()

    def _go_on(self) -> None:
        self._watch(self._version, self._take)

    def _take(self, change: Change) -> None:
        self._run.check(self._what)
        if change.kind != "BOOKMARK":
            self._tell(Key.of(change.object), change)
        # Not before whoever is told has taken it: what was lost on the way is told again.
        self._version = change.version
        self._heard += 1

    def _tell(self, key: Key, change: Change) -> None:
        if change.kind == "DELETED":
            self._known.discard(key)
            self._followed.gone(key)
        else:
            self._known.add(key)
            self._followed.there(key, change.object)
