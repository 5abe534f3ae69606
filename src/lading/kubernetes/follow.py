"""Following a resource: list its objects, watch their changes, and list again when the watch's version has expired.

https://kubernetes.io/docs/reference/using-api/api-concepts/#efficient-detection-of-changes.
"""

import random
import sys
from collections.abc import Callable
from functools import partial
from typing import NamedTuple

from lading.kubernetes.api_server import ApiServer, Change, Object, Resource
from lading.kubernetes.refused import Expired
from lading.retry import Retry

# A random pause before a watch goes on, so that the watches of a fleet do not start at the same time.
_PAUSE_S = 1.0


class Key(NamedTuple):
    """The name of an object of a resource; ``namespace`` is "" for objects without one."""

    namespace: str
    name: str

    @classmethod
    def of(cls, thing: Object) -> "Key":
        return cls(thing["metadata"].get("namespace", ""), thing["metadata"]["name"])

    @property
    def shown(self) -> str:
        """The name in messages: ``team-a/iris``."""
        return f"{self.namespace}/{self.name}"


class Followed(NamedTuple):
    """Callbacks of ``follow``, in its thread: for an object that exists or has changed, a deleted one, a list's end.

    An object may be passed again without a change.
    """

    there: Callable[[Key, Object], None]
    gone: Callable[[Key], None]
    listed: Callable[[], None] = lambda: None


def follow(server: ApiServer, resource: Resource, namespace: str, followed: Followed, *, labels: str = "") -> None:
    """Follow a resource until the run is stopped, which raises ``Interrupted``; ``namespace`` "" means all of them.

    It waits for an unavailable server without limit.  Errors that waiting does not mend are raised: ``Missing`` if
    there is no such resource, ``NotAllowed`` if it may not be listed.
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
        # Only after the callback has returned: a change that was lost in an error is passed again.
        self._version = change.version
        self._heard += 1

    def _tell(self, key: Key, change: Change) -> None:
        if change.kind == "DELETED":
            self._known.discard(key)
            self._followed.gone(key)
        else:
            self._known.add(key)
            self._followed.there(key, change.object)
