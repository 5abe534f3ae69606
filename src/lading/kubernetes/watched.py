"""The objects of one resource, as they are now."""

import threading
from collections.abc import Callable
from contextlib import suppress

from lading.errors import Interrupted, LadingError, lading_error
from lading.kubernetes.api_server import ApiServer, Object, Resource
from lading.kubernetes.follow import Followed, Key, follow
from lading.kubernetes.refused import Missing

# The pause after an error that waiting may mend, or if the resource does not exist: it may be installed later.
_AGAIN_S = 60.0


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

    def watch(
        self,
        server: ApiServer,
        resource: Resource,
        namespace: str,
        failed: Callable[[LadingError], None],
        *,
        labels: str = "",
    ) -> None:
        """Follow the resource until the run is stopped; an error is told, and it begins anew after a minute."""
        with suppress(Interrupted):
            while True:
                # What an earlier watch told may have been deleted since it ended.
                self._told.clear()
                try:
                    follow(server, resource, namespace, self.followed(), labels=labels)
                except Missing:
                    # The resource does not exist, so it has no objects.
                    self._told.clear()
                    self.listed()
                except Exception as error:  # noqa: BLE001 - without a watch, nothing would follow any more
                    failed(lading_error(error))
                server.http.retry.run.wait(_AGAIN_S, f"waiting for {resource.plural}")

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
