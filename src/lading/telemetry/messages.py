"""Events as people read them."""

import re
from collections.abc import Iterator

from lading import events
from lading.text.units import count, duration, size

_DIGEST = re.compile(r"([0-9a-f]{12})[0-9a-f]{20,}")


def sentence(event: events.Event) -> str:
    """The event in one line; names in it are not escaped, so they may be hostile."""
    if isinstance(event, events.OfTheModel):
        return _of_the_model(event)
    if isinstance(event, events.OfTheDestination):
        return _of_the_destination(event)
    if isinstance(event, events.OfTheTransfer):
        return _of_the_transfer(event)
    if isinstance(event, events.OfTheStore):
        return _of_the_store(event)
    if isinstance(event, events.OfTheAgent):
        return _of_the_agent(event)
    match event:
        case events.Recorded():
            return f"recorded in registry {event.registry}: {event.service} in {event.environment} has it"
        case events.NotRecorded():
            return f"warning: this delivery is not recorded in registry {event.registry}: {event.why}"
        case events.NotTraced():
            return f"warning: no trace is sent: {_with_hint(event.why, event.hint)}"
        case events.RolloutTold():
            return f"{event.reason}: {event.message}"


def _of_the_model(event: events.OfTheModel) -> str:
    match event:
        case events.Resolved():
            version = f", version {event.version}" if event.version else ""
            return f"{event.requested} is {event.resolved} (registry {event.registry}{version})"
        case events.PassedOver():
            return f"registry {event.registry} is not available, asking the next one: {event.why}"
        case events.LastKnown():
            return (
                f"warning: {event.requested} cannot be resolved now ({event.why}); "
                f"using what it was at {event.known_at}: {event.resolved}"
            )
        case events.Signed():
            rule = f"the rule for {event.rule}" if event.rule else "the rule for every origin"
            return f"{event.uri} is signed by {event.signer}, as {rule} asks for"
        case events.NotTrusted():
            why = _with_hint(event.why, event.hint)
            return f"warning: {event.uri} is not trusted, and delivered all the same: {why}"
        case events.Listed():
            return f"{event.uri}: {count(event.files, 'file')}, {size(event.size_bytes)}"
        case events.OfAnotherMachine():
            return f"warning: {event.uri} has no image for {event.wanted}, only for {event.platform}: taking that"


def _of_the_destination(event: events.OfTheDestination) -> str:
    match event:
        case events.Waiting():
            return f"waiting: another process delivers to {event.destination}"
        case events.Rehashing():
            return f"{event.destination} was written to or copied since it was delivered: hashing what may have changed"
        case events.Modified():
            example = _some(event.example, event.files)
            return f"changed in {event.destination} since it was delivered, and fetched again: {example}"
        case events.AlreadyDelivered():
            return f"{event.destination} already holds the model; nothing to do"
        case events.StraysFound():
            return (
                f"warning: {event.destination} also holds files that lading did not deliver: "
                f"{_some(event.example, event.files)} (--remove-strays removes everything that is not part of the model)"
            )
        case events.StraysRemoved():
            return f"removed from {event.destination} files that lading did not deliver: {_some(event.example, event.strays)}"
        case events.NotRemoved():
            return f"warning: {event.path} cannot be removed and was left: {_with_hint(event.why, event.hint)}"
        case events.NotExecutable():
            example = _some(event.example, event.files)
            return f"warning: not executable, since the file system refuses to set modes: {example}"
        case events.Delivered():
            # A rate over less than a second says nothing.
            rate = f" ({size(event.size_bytes / event.seconds)}/s)" if event.seconds >= 1 else ""
            return (
                f"delivered {count(event.files, 'file')}, {size(event.size_bytes)} to {event.destination} "
                f"in {duration(event.seconds)}{rate}"
            )


def _of_the_transfer(event: events.OfTheTransfer) -> str:
    match event:
        case events.TlsChosen():
            return f"TLS by {event.by}"
        case events.FewThreads():
            workers = count(event.workers, "worker")
            return f"warning: {workers}, since the system refuses more threads ({event.limits})"
        case events.Restarted():
            why = f": {event.why}" if event.why else ""
            return f"starting from the beginning: nothing that an earlier run left can be used{why}"
        case events.Resumed():
            return f"resumed: {size(event.size_bytes)} had been received already"
        case events.Progress():
            return _progress(event)
        case events.Retried():
            which = f" ({event.attempt} of {event.attempts})" if event.attempts else ""
            when = f" in {duration(event.delay_s)}" if event.delay_s else ""
            why = event.why if event.why.startswith(event.what) else f"{event.what}: {event.why}"
            # If an error follows, it has the whole digests.
            return f"trying again{which}{when}: " + _DIGEST.sub(r"\1…", why)
        case events.FileFailed():
            why = event.why if event.why.startswith(event.path) else f"{event.path}: {event.why}"
            return f"warning: {why}; going on with the other files"
        case events.RelayFailed():
            return f"warning: files come from their origin, without peers, since {event.relay} does not answer well: {event.why}"
        case events.RelayRefuted():
            return f"warning: wrong bytes by {event.relay}, now from the origin: " + _DIGEST.sub(r"\1…", event.why)
        case events.Unverified():
            whose = f"{event.uri}: " if event.uri else ""
            return f"{whose}not verified, since the origin declares no digest: {_some(event.example, event.files)}"
        case events.Unpacking():
            return f"unpacking {event.name}"
        case events.Backslashes():
            taken = "kept as a part of them" if event.path == event.example else f"taken for slashes: {event.path}"
            example = _some(event.example, event.members)
            return f"warning: names in {event.archive} have backslashes ({example}), which are {taken}"
        case events.Decrypted():
            plain = ""
            if event.plain_files:
                plain = f"; not encrypted: {_some(event.example, event.plain_files)}"
            return f"decrypted {count(event.files, 'file')} with {event.resource}{plain}"


def _of_the_store(event: events.OfTheStore) -> str:
    match event:
        case events.WaitingForStore():
            far = f"{size(event.done_bytes)} of {size(event.total_bytes)}"
            return f"waiting: another process fetches {event.uri} into the store, {far} so far"
        case events.GivingWay():
            return f"{event.uri} waits: a pod on this node waits for another model"
        case events.StoreBypassed():
            return (
                f"the store {event.store} is read-only here: files that it does not have go straight to the destination"
            )
        case events.ReusedFromStore():
            return f"{count(event.files, 'file')} already in the store, {size(event.size_bytes)}"
        case events.Materialized():
            return f"taken from the store into {event.destination}: {event.ways}, in {duration(event.seconds)}"
        case events.Evicted():
            return f"evicted {event.uri} from the store, {size(event.freed_bytes)}: {event.why}"
        case events.SetAside():
            damaged = _some(event.example, event.files)
            return f"warning: {event.uri} was damaged in the store, and is fetched again when it is needed: {damaged}"


def _of_the_agent(event: events.OfTheAgent) -> str:
    match event:
        case events.Switched():
            before = f" and replaces {event.before}" if event.before else ""
            return f"{event.version} is in place{before}"
        case events.Loaded():
            return f"the server has loaded {event.version}, in {duration(event.seconds)}"
        case events.RolledBack():
            again = f"the next try is in {duration(event.again_in_s)}"
            return f"{event.version} was refused ({event.why}): {event.before} is in place again, {again}"
        case events.Postponed():
            return f"{event.version} is not taken yet: {event.why}"
        case events.Failed():
            return f"error[{event.code}]: {_with_hint(event.why, event.hint)}"
        case events.Reconfigured():
            return f"configuration read again: {count(event.deliveries, 'model')} to keep current"
        case events.NotReconfigured():
            why = _with_hint(event.why, event.hint)
            return f"the new configuration is not used, and the one before stays in force: {why}"


def _with_hint(why: str, hint: str) -> str:
    return f"{why} ({hint})" if hint else why


def _some(example: str, number: int) -> str:
    """The first of several names, and the number of the others."""
    return f"{example} and {number - 1} more" if number > 1 else example


def _progress(event: events.Progress) -> str:
    moved, files, *others = progress_parts(event)
    if event.total_bytes:
        moved += f" ({100 * event.done_bytes // event.total_bytes} %)"
    return ", ".join((moved, files, *others))


def progress_parts(event: events.Progress) -> Iterator[str]:
    """Bytes, files, rate and, if it is known, the time left."""
    rate = (event.done_bytes - event.resumed_bytes) / max(event.elapsed_s, 1e-3)
    yield f"{size(event.done_bytes)} of {size(event.total_bytes)}" if event.total_bytes else size(event.done_bytes)
    yield f"{event.done_files} of {count(event.total_files, 'file')}"
    yield f"{size(rate)}/s"
    if rate and event.total_bytes > event.done_bytes:
        yield f"{duration((event.total_bytes - event.done_bytes) / rate)} left"
