"""Single flight: a model is fetched into the store once for all processes that want it, and kept while they use it."""

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, ExitStack, nullcontext
from pathlib import Path
from typing import TypeVar

from lading.delivery.plan import Delivery, locked_destinations, plan
from lading.delivery.resolve import ResolvedModel
from lading.delivery.space import require_space
from lading.delivery.stage import publish, stage
from lading.destination.workspace import Workspace, best_effort
from lading.errors import LadingError, NoSpace
from lading.events import Retried, WaitingForStore, ignore
from lading.model.listing import Listing
from lading.session import Session
from lading.store.eviction import Full, ensure_free, evict_one, holders, is_due, prune
from lading.store.quotas import charge
from lading.store.store import Store, Vanished
from lading.system.disk import as_lading_errors, existing_ancestor
from lading.system.flock import holding
from lading.system.folders import remove_tree

T = TypeVar("T")

# Each try evicts something, or fetches what somebody else has evicted.
_MOST_TRIES = 5
_TELL_EVERY_S = 10.0
# More than an origin takes that does not answer one attempt after the other.
_MOST_STALLS = 15


class _StandsStill(LadingError):
    """The process that fetches a model has made no progress for so long that it may hang."""


def while_stored(
    store: Store, models: Mapping[str, ResolvedModel], copied_bytes: int, session: Session, use: Callable[[], T]
) -> tuple[T, bool]:
    """Call ``use`` while the store has these models (by key) and holds leases on them.

    Returns its result, and whether a model was fetched.  ``use`` is called again when a model has ``Vanished``, or when
    space was lacking.
    """
    folders = {key: store.incoming(key) for key in models}
    fetched = False
    with ExitStack() as stack:
        for key in sorted(models):
            # From here on nobody evicts them.
            stack.enter_context(store.lease(key))
        if not store.settings.locks:
            # Nobody goes on with what one process alone has fetched.
            for folder in folders.values():
                stack.callback(remove_tree, folder)
        with as_lading_errors(store.root):
            sizes_bytes = {key: model.needed_bytes for key, model in models.items()}
            charge(store, session.settings.variables.get("POD_NAMESPACE", ""), sizes_bytes)
        for left in reversed(range(_MOST_TRIES)):
            try:
                with as_lading_errors(store.root):
                    fetched |= _fetch(store, models, folders, copied_bytes, session)
                used = use()
                break
            except Vanished as error:
                if not left:
                    raise
                session.listener(Retried("the model", error.message, 0.0))
            except NoSpace as error:
                if isinstance(error, Full) or _is_elsewhere(store, error):
                    # Evicting would not help.
                    raise
                # Somebody else has written meanwhile.  What was staged stays for the next try.
                if not left or not evict_one(store):
                    raise NoSpace(error.message, hint=f"{error.hint}; {holders(store)}") from error
                session.listener(Retried("the model", error.message, 0.0))
        if fetched or is_due(store):
            # Only by fetching has the store grown.
            with best_effort(store.root, session.listener):
                prune(store)
    return used, fetched


def waited_for(store: Store, session: Session) -> AbstractContextManager[None]:
    """Let warm-ups of the store give way while the block runs, if a pod waits for this, and it is no warm-up itself."""
    urgent = session.for_pod and not session.give_way
    return store.priority.taken(session.run) if urgent else nullcontext()


def _is_elsewhere(store: Store, error: NoSpace) -> bool:
    """Whether the full file system is another one than the store's."""
    return bool(error.folder) and existing_ancestor(Path(error.folder)).stat().st_dev != store.root.stat().st_dev


def _fetch(
    store: Store, models: Mapping[str, ResolvedModel], folders: Mapping[str, Path], copied_bytes: int, session: Session
) -> bool:
    """Fetch those of these models (by key) that the store lacks; false if it has all of them."""
    # It is told how far the other process is, and not only that it is waited for.
    quiet = session.run._replace(listener=ignore)
    with ExitStack() as stack:
        # In the order of their keys, so that two processes cannot block each other.
        for key in sorted(models) if store.settings.locks else ():
            if store.has(key):
                continue
            try:
                stack.enter_context(holding(store.lock(key), quiet, _Watch(store, key, models[key].listed, session)))
            except _StandsStill as error:
                session.listener(Retried("the model", error.message, 0.0))
                folders = {**folders, key: store.incoming(key, alone=True)}
                stack.callback(remove_tree, folders[key])
        lacking = [Delivery(model, Workspace(folders[key]), key) for key, model in models.items() if not store.has(key)]
        if not lacking:
            ensure_free(store, copied_bytes)
            return False
        with locked_destinations(lacking, session) as ready:
            plans = [plan(each, session, store) for each in ready]
            require_space(plans, store, copied_bytes=copied_bytes)
            with waited_for(store, session):
                fetched = publish(stage(plans, session, store.blob_algorithm), session, quiet=True)
        for each in lacking:
            store.commit(each.key, each.destination, fetched[each.destination], session.settings.verify)
    return True


class _Watch:
    """Watches another process fetch a model, and reports its progress every few seconds."""

    def __init__(self, store: Store, key: str, listed: Listing, session: Session) -> None:
        self._store, self._key, self._listed, self._session = store, key, listed, session
        self._next_s = self._moved_s = session.run.clock.now()
        self._most_still_s = _MOST_STALLS * session.settings.limits.stall_s
        self._done_bytes = 0

    def __call__(self) -> None:
        now_s = self._session.run.clock.now()
        if now_s < self._next_s:
            return
        self._next_s = now_s + _TELL_EVERY_S
        done_bytes = self._store.staged_bytes(self._key)
        if done_bytes != self._done_bytes:
            self._done_bytes, self._moved_s = done_bytes, now_s
        elif now_s - self._moved_s > self._most_still_s:
            raise _StandsStill("whoever holds its lock in the store does not go on: it is fetched without waiting")
        self._session.listener(WaitingForStore(self._listed.resolved, done_bytes, self._listed.size_bytes))
