"""The objects of one resource, as they are now."""

import threading
from collections.abc import Callable

from lading.kubernetes.api_server import Object
from lading.kubernetes.follow import Followed, Key


class Watched:
    """The objects of one resource, kept current by a thread that watches it."""

    def __init__(self, changed: Callable[[Key], None]) -> None:
        self._changed = changed
        self._lock = threading.Lock()
        self._objects: dict[Key, Object] = {}
        self._told: set[Key] = set()
        self.is_listed = False

    def get(self, key: Key) -> Object | None:
        with self._lock:
            return self._objects.get(key)

    def all(self) -> dict[Key, Object]:
        with self._lock:
            return dict(self._objects)

    def followed(self) -> Followed:
        return Followed(self._there, self._gone, self.listed)

    def listed(self) -> None:
        """The list is complete: remove objects that are not in it, since they were deleted while nobody watched."""
        with self._lock:
            self._objects = {key: thing for key, thing in self._objects.items() if key in self._told}
            self._told = set()
        self.is_listed = True

    def _there(self, key: Key, thing: Object) -> None:
        with self._lock:
            self._objects[key] = thing
            self._told.add(key)
        self._changed(key)

    def _gone(self, key: Key) -> None:
        with self._lock:
            self._objects.pop(key, None)
        self._changed(key)
