"""One cycle of one delivery.

    ask       what is it now?                                    (resolve)
    choose    may it be taken, and now?                          (version_policy, history)
    deliver   the new version beside the one in place, verified  (deliver)
    switch    one rename                                         (versions, in_store)
    tell      the model server loads it, and is ready            (model_server)
    forget    versions that are no longer kept

If a server refuses a version, the one before is put back, and the version is not tried again for a while.
A process may be killed anywhere: the next cycle sees on disk which version is in place, and in the record
which one the server has loaded, and goes on from there.
"""

from collections.abc import Callable
from typing import Literal, NamedTuple

from lading.agent.find_if_changed import find_if_changed
from lading.agent.history import Record, Refusal, read_record, write_record
from lading.agent.in_store import StoredVersion
from lading.agent.model_server import Server
from lading.agent.status import Doing
from lading.agent.version_policy import held_s, refused_s
from lading.agent.versions import Versions
from lading.delivery.request import Request
from lading.delivery.resolve import find
from lading.errors import IntegrityError, LadingError, NotAllowed, NotFound, Unavailable, UsageError
from lading.events import Loaded, Postponed, RolledBack, Switched
from lading.model.listing import Listing
from lading.model.manifest import Manifest
from lading.model.pin import split_pin
from lading.model.reference import SCHEMES, exact_reference
from lading.model.uri import ModelURI
from lading.registries import federation
from lading.session import Session
from lading.settings.agent import Delivery
from lading.settings.ranges import in_range
from lading.settings.section import errors_name
from lading.settings.settings import Settings
from lading.sources.schemes import refuse_unknown
from lading.text.printable import printable
from lading.text.units import duration

Word = Literal["unchanged", "updated", "postponed", "refused"]
_MOST_TRIED = 20


class Outcome(NamedTuple):
    """How a cycle ended; ``manifest`` is that of the version in place.

    ``waits`` says why a known newer version is not in place; with an ``exit_code`` the agent must end.
    """

    word: Word
    manifest: Manifest | None
    since_s: float = 0.0
    waits: str = ""
    exit_code: int = 0


def reconcile(
    delivery: Delivery,
    session: Session,
    *,
    unix_time: Callable[[], float],
    host: str,
    doing: Callable[[Doing], None],
) -> Outcome:
    """Make one delivery current; raises the error that prevents it."""
    return _Reconciliation(delivery, session, unix_time, host, doing).take()


def in_place(delivery: Delivery, settings: Settings) -> tuple[Manifest | None, float]:
    """The manifest of the version in place, and since when it is (Unix time)."""
    versions = _versions(delivery, settings)
    current = versions.current()
    return versions.manifest(current), _since_s(read_record(versions.record), current)


def _versions(delivery: Delivery, settings: Settings) -> Versions | StoredVersion:
    return Versions(delivery) if delivery.destination else StoredVersion(delivery, settings)


def refuse_unreadable(delivery: Delivery) -> None:
    """Raise for a delivery that can never succeed, judged by its configuration alone."""
    with errors_name(f"delivery {delivery.name}"):
        uri = split_pin(ModelURI.parse(delivery.uri))[0]
        if uri.scheme.lower() in SCHEMES:
            return
        refuse_unknown(uri)
        if delivery.range:
            raise UsageError(
                f"{uri.redacted()} is not a name in a registry, and a range of versions is asked for",
                hint="only a registry can say which versions there are",
            )


class _End(NamedTuple):
    """How a part of a cycle ended, and why a known newer version is not in place."""

    word: Word
    waits: str = ""


class _Reconciliation:
    def __init__(
        self,
        delivery: Delivery,
        session: Session,
        unix_time: Callable[[], float],
        host: str,
        doing: Callable[[Doing], None],
    ) -> None:
        self._delivery, self._session, self._host, self._doing = delivery, session, host, doing
        self._unix_time = unix_time
        self._versions = _versions(delivery, session.settings)
        self._record = read_record(self._versions.record)
        self._server = Server(delivery.on_change, session) if delivery.on_change else None
        self._exit_code = 0

    def take(self) -> Outcome:
        delivered = self._versions.manifest(self._versions.current())
        self._doing("asking")
        end = self._make_current(delivered)
        end = self._load() or end
        if end.word != "unchanged":
            self._prune()
        current = self._versions.current()
        since_s = _since_s(self._record, current)
        return Outcome(end.word, self._versions.manifest(current), since_s, end.waits, self._exit_code)

    def _make_current(self, delivered: Manifest | None) -> _End:
        """Put the wanted version in place, if it is not and may be."""
        try:
            found = self._ask(delivered)
        except Unavailable:
            may_recall = self._session.settings.offline == "last-known" and self._delivery.destination
            if delivered is not None or not may_recall or self._delivery.range:
                raise
            self._recall()
            return _End("updated")
        if found is None:
            return _End("unchanged")
        listed, uri = found
        key = self._versions.key(listed.pin)
        if delivered is not None and key == self._versions.current():
            return _End("unchanged")
        waits = self._why_not_now(key, listed, delivered)
        if waits:
            return _End("postponed", waits)
        self._deliver(key, listed, uri, delivered)
        return _End("updated")

    def _ask(self, delivered: Manifest | None) -> tuple[Listing, ModelURI] | None:
        """The listing of the wanted version, and the URI that was asked for it; None if it is in place already."""
        if delivered is not None and self._versions.key(delivered.pin) != self._versions.current():
            # The patterns have changed: other files are wanted now.
            delivered = None
        uri = ModelURI.parse(self._delivery.uri)
        if not self._delivery.range:
            return self._listed(uri, delivered)
        settings, http = self._session.settings, self._session.http
        known = federation.versions(uri, settings, http)
        for name in in_range(self._delivery.range, known.names)[:_MOST_TRIED]:
            exact = exact_reference(known.registry, known.model, name, uri)
            try:
                return self._listed(exact, delivered)
            except NotFound:
                # It is archived, or not complete yet: try the next lower version.
                continue
        raise NotFound(
            f"no live version of {uri.redacted()} is in the range {printable(self._delivery.range)}",
            hint=f"it has {', '.join(map(printable, known.names[:5]))}" if known.names else "it has no version",
        )

    def _listed(self, uri: ModelURI, delivered: Manifest | None) -> tuple[Listing, ModelURI] | None:
        request = Request(str(uri), self._versions.root)
        found = (
            find_if_changed(request, delivered, self._session)
            if delivered is not None
            else find(request, self._session)
        )
        return (found.listed, uri) if found else None

    def _why_not_now(self, key: str, listed: Listing, delivered: Manifest | None) -> str:
        """Why a version is not taken now, or ""."""
        now_s = self._unix_time()
        record = self._record.seeing(key, now_s)
        if record is not self._record:
            self._remember(record)
        why = ""
        refusal = self._record.refused.get(key)
        held = held_s(self._delivery, self._host, self._record.seen[key], now_s)
        if refusal is not None and now_s < refusal.until_s:
            why = f"it was refused ({refusal.why}), and is tried again in {duration(refusal.until_s - now_s)}"
        elif delivered is None:
            # Without any version the pod would never be ready, so this one is taken at once.
            return ""
        elif held:
            why = f"it is held for {duration(held)} more"
        elif self._server is not None and not self._server.is_there():
            why = "the model server does not answer, and could not be told"
        if why:
            if delivered is None:
                raise Unavailable(f"{_name(listed)} is not taken: {why}", hint="see the log of the model server")
            self._session.listener(Postponed(self._delivery.name, _name(listed), why))
        return why

    def _recall(self) -> None:
        """Put in place what the store last knew for the name: nothing is in place, and no registry is available."""
        key = self._versions.fetch(self._delivery.uri, self._versions.key(""), self._session)
        delivered = self._versions.manifest(key)
        self._versions.switch(key)
        name = _name(delivered) if delivered else key
        self._remember(self._record.switched(key, name, self._unix_time()))
        self._session.listener(Switched(self._delivery.name, name, ""))

    def _deliver(self, key: str, listed: Listing, uri: ModelURI, delivered: Manifest | None) -> None:
        """Deliver a version beside the one in place, then switch to it."""
        self._doing("delivering")
        try:
            came = self._versions.fetch(str(uri), key, self._session)
        except IntegrityError as error:
            # It is not tried in every cycle: it may be a terabyte that cannot be verified.
            self._refuse(key, error.message)
            raise
        if came != key and self._delivery.layout != "folder":
            raise Unavailable(f"{uri.redacted()} changed while it was delivered", hint="the next cycle looks again")
        self._doing("switching")
        self._versions.switch(key)
        self._remember(self._record.switched(key, _name(listed), self._unix_time()))
        self._session.listener(Switched(self._delivery.name, _name(listed), _name(delivered) if delivered else ""))

    def _load(self) -> _End | None:
        """Tell the server of the version in place, if it has not loaded it; returns the cycle's end if it cannot."""
        key = self._versions.current()
        if self._server is None or key == self._record.loaded:
            return None
        if not self._server.is_there():
            # It starts later than the agent, and loads what is in place then.
            return None
        refusal = self._record.refused.get(key)
        if refusal is not None and self._unix_time() < refusal.until_s:
            return _End("postponed", f"the server refused it ({refusal.why}), and nothing else is in place")
        manifest = self._versions.manifest(key)
        name = _name(manifest) if manifest else key
        self._doing("loading")
        started_s = self._session.run.clock.now()
        try:
            self._server.tell(self._facts(key, name))
        except LadingError as error:
            away = isinstance(error, Unavailable) and self._delivery.on_change and not self._delivery.on_change.load
            if away or isinstance(error, NotAllowed):
                # It is unavailable, or does not accept the token, which says nothing about the version: the next
                # cycle tells it.
                raise
            return self._roll_back(key, name, error)
        self._remember(self._record._replace(loaded=key))
        self._session.listener(Loaded(self._delivery.name, name, self._session.run.clock.now() - started_s))
        self._exit_code = self._delivery.on_change.exit if self._delivery.on_change else 0
        return None

    def _roll_back(self, key: str, name: str, error: LadingError) -> _End:
        """Put back the version that the server had, and tell it to load that again."""
        why = f"{error.message}: {error.hint}" if error.hint else error.message
        before = self._record.loaded
        manifest = self._versions.manifest(before) if self._delivery.layout != "folder" else None
        again_s = self._refuse(key, why)
        if manifest is None or self._server is None:
            raise error
        self._versions.switch(before)
        self._remember(self._record.switched(before, _name(manifest), self._unix_time()))
        self._session.listener(RolledBack(self._delivery.name, name, _name(manifest), why, again_s))
        try:
            self._server.tell(self._facts(before, _name(manifest)))
        except LadingError:
            # It is not known what it has loaded: the next cycle tells it again.
            self._remember(self._record._replace(loaded=""))
        return _End("refused", f"{name} was refused: {why}")

    def _refuse(self, key: str, why: str) -> float:
        """Do not try a version for a while; returns for how many seconds."""
        was = self._record.refused.get(key)
        times = was.times + 1 if was else 1
        again_s = refused_s(times)
        self._remember(self._record.refusing(key, Refusal(times, self._unix_time() + again_s, why)))
        return again_s

    def _prune(self) -> None:
        """Remove all versions but the one in place, the one that the server has, and the last ones before."""
        others = [past.key for past in self._record.history if past.key not in ("", self._versions.current())]
        self._versions.prune({self._record.loaded, *others[: self._delivery.keep]})

    def _facts(self, key: str, name: str) -> dict[str, str]:
        """The facts about a version for a server that is told by a file or a call."""
        manifest = self._versions.manifest(key)
        pin = manifest.pin if manifest else ""
        about = {"delivery": self._delivery.name, "version": name, "pin": pin}
        return {**about, "destination": self._delivery.destination}

    def _remember(self, record: Record) -> None:
        self._record = record
        write_record(self._versions.record, record)


def _since_s(record: Record, key: str) -> float:
    return next((past.since_s for past in record.history if past.key == key), 0.0)


def _name(manifest: Listing | Manifest) -> str:
    """The version's name for people: the registry's name, or the beginning of its pin."""
    if manifest.version:
        return printable(manifest.version)
    pin = split_pin(ModelURI.parse(manifest.pin))[1]
    return str(pin)[:19] if pin else "a version"
