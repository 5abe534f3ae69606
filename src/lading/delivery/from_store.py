"""From the store: a model is fetched into the store once, and materialized from there at its destinations."""

import os
import time
from collections.abc import Sequence
from functools import partial
from pathlib import Path

from lading.delivery.existing import existing, leave, report_delivered
from lading.delivery.plan import Delivery, Staged, already_delivered, locked_destinations, naming, plan
from lading.delivery.resolve import ResolvedModel
from lading.delivery.single_flight import waited_for, while_stored
from lading.delivery.space import require_space, require_space_for_copies
from lading.delivery.stage import delivered_event, publish, stage
from lading.destination.workspace import Workspace
from lading.errors import NotAllowed
from lading.events import Materialized, StoreBypassed
from lading.model.listing import Listing
from lading.model.manifest import Manifest
from lading.session import Session
from lading.store.eviction import clean_up
from lading.store.priority import WarmUp
from lading.store.store import Store, Vanished
from lading.system.disk import as_lading_errors
from lading.text.printable import printable


def deliver_from_store(deliveries: Sequence[Delivery], session: Session) -> dict[Path, Manifest]:
    """Deliver each model from the store, into which missing models are fetched first.

    None appears before all have been received; returns the sealed manifests by destination.
    """
    store = Store(session.settings.store, session.listener)
    with as_lading_errors(store.root):
        done = {each.destination: old for each in deliveries if (old := already_delivered(each, session)) is not None}
        keyed = [
            each._replace(key=store.key(each.model.listed, each.model.expected, session.settings))
            for each in deliveries
        ]
        pending = [each for each in keyed if each.destination not in done]
        if not store.writable:
            return done | _stage_and_publish(store, pending, session)
        clean_up(store)
        copied_bytes = require_space_for_copies(pending, store)
        models = {each.key: each.model for each in pending}
        came, _ = while_stored(
            store, models, copied_bytes, session, lambda: _stage_and_publish(store, pending, session)
        )
        for each in keyed:
            _note(store, each.key, each.model.listed)
    return done | came


def keep(model: ResolvedModel, name: str, session: Session) -> Manifest:
    """Bring a model to the store alone, which keeps it under ``name`` and releases the model that had this name."""
    store = Store(session.settings.store, session.listener)
    if not store.writable:
        raise NotAllowed(
            f"the store {printable(str(store.root))} cannot be written, so it cannot keep the model",
            hint=f"it must be writable by user {os.geteuid()}",
        )
    key = store.key(model.listed, model.expected, session.settings)
    session.give_way = WarmUp(store.priority, model.listed.resolved, partial(store.leases.is_shared, key), session.run)

    def refer() -> Manifest:
        stored = _stored(store, key)
        kept = model.listed.sealed().with_files_of(stored)._replace(seconds=stored.seconds)
        store.references.keep(name, key, kept)
        return kept

    with as_lading_errors(store.root):
        clean_up(store)
        kept, fetched = while_stored(store, {key: model}, 0, session, refer)
        if fetched:
            session.listener(delivered_event(store.folder(key), kept))
        _note(store, key, model.listed)
    return kept


def _note(store: Store, key: str, listed: Listing) -> None:
    """Note the use of a model, and the query that it answered."""
    if store.has(key):
        store.use(key)
        if listed.query_id:
            store.answers.remember(listed.sealed(), key)


def _stage_and_publish(store: Store, deliveries: Sequence[Delivery], session: Session) -> dict[Path, Manifest]:
    """Deliver these models from the store; if the store is read-only, models that it lacks are fetched directly, and first."""
    with locked_destinations(deliveries, session) as ready:
        stored = {each.key for each in ready if store.writable or store.has(each.key)}
        staged = _stage_past(store, [each for each in ready if each.key not in stored], session)
        for each in (each for each in ready if each.key in stored):
            try:
                staged.append(stage_from_store(store, each.key, each.model.listed.sealed(), each.workspace, session))
            except Vanished:
                if store.writable:
                    raise
                staged += _stage_past(store, [each], session)
        return publish(staged, session)


def _stage_past(store: Store, deliveries: Sequence[Delivery], session: Session) -> list[Staged]:
    if not deliveries:
        return []
    session.listener(StoreBypassed(str(store.root)))
    plans = [plan(each, session) for each in deliveries]
    require_space(plans)
    with waited_for(store, session):
        return stage(plans, session)


def stage_from_store(store: Store, key: str, facts: Manifest, workspace: Workspace, session: Session) -> Staged:
    """Materialize a model of the store in a workspace; it has no final name yet."""
    begun_s = time.monotonic()
    with naming(workspace):
        stored = _stored(store, key)
        manifest = facts.with_files_of(stored)
        found = existing(workspace, session)
        if (old := found.same(manifest)) is not None:
            # Another process was first.
            leave(workspace, found, session)
            report_delivered(workspace, old, session)
            return Staged(workspace, None, old)
        workspace.discard_stage()
        workspace.stage.mkdir()
        out = store.materialize(key, stored.files, workspace.stage)
        for folder in stored.folders:
            (workspace.stage / folder).mkdir(parents=True, exist_ok=True)
        ways = ", ".join(f"{files} by {way}" for way, files in sorted(out.ways.items()))
        seconds = round(time.monotonic() - begun_s, 3)
        session.listener(Materialized(str(workspace.given), ways, out.size_bytes, seconds))
        return Staged(workspace, workspace.stage, manifest)


def _stored(store: Store, key: str) -> Manifest:
    """The model with this key; ``Vanished`` if it is gone or cannot be read."""
    stored = store.find(key)
    if stored is None:
        if store.writable and store.has(key):
            store.put_aside(key)
        raise Vanished("the model is no longer in the store", retry_after_s=0.0)
    return stored
