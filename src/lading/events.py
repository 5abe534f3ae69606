"""What happened, as frozen values.  Core code tells a listener; logs and progress bars listen."""

from typing import NamedTuple, Protocol


class Resolved(NamedTuple):
    """A name became an exact source URI (both redacted)."""

    requested: str
    resolved: str
    registry: str
    version: str


class PassedOver(NamedTuple):
    """A registry is not available, and the next one is asked."""

    registry: str
    why: str


class Signed(NamedTuple):
    """A model's signature is one that the policy asks for; ``rule`` is its prefix, "" for the rule for every origin."""

    uri: str
    signer: str
    rule: str


class NotTrusted(NamedTuple):
    """A model is not signed as the policy asks for, which lets it pass all the same."""

    uri: str
    why: str
    hint: str


class Listed(NamedTuple):
    """The source told its files."""

    uri: str
    files: int
    size_bytes: int


class RelayFailed(NamedTuple):
    """A dfdaemon does not answer as it should, and files come from their origin meanwhile; told once in a run."""

    relay: str
    why: str


class RelayRefuted(NamedTuple):
    """What came of a file by a dfdaemon is not that file; it is fetched again, from its origin."""

    relay: str
    path: str
    why: str


class OfAnotherMachine(NamedTuple):
    """An index has an image for another platform only; a model fits any, so that one is taken."""

    uri: str
    platform: str
    wanted: str


class AlreadyDelivered(NamedTuple):
    """The destination holds exactly what was asked for; nothing is fetched."""

    destination: str


class StraysRemoved(NamedTuple):
    """The destination held something besides its model, and that is gone, as was asked for."""

    destination: str
    strays: int
    example: str


class StraysFound(NamedTuple):
    """The destination holds something besides its model, which stays."""

    destination: str
    files: int
    example: str


class NotRemoved(NamedTuple):
    """The model is in place, and something at ``path`` that is not needed any more could not be removed."""

    path: str
    why: str
    hint: str


class TlsChosen(NamedTuple):
    """The run is about to use TLS for the first time; ``by`` says which implementations do it, in words."""

    by: str


class Rehashing(NamedTuple):
    """Files of the destination have other times than when they were delivered; those are hashed again."""

    destination: str


class Modified(NamedTuple):
    """Files of the destination are not what was delivered any more; they are fetched again."""

    destination: str
    files: int
    example: str


class Waiting(NamedTuple):
    """Another process delivers into the same destination."""

    destination: str


class WaitingForStore(NamedTuple):
    """Another process fetches the model into the store; told every few seconds."""

    uri: str
    done_bytes: int
    total_bytes: int


class GivingWay(NamedTuple):
    """A warm-up of the store waits, since a pod of the node waits for another model."""

    uri: str


class StoreBypassed(NamedTuple):
    """The store may not be written: what it lacks is fetched to the destination alone."""

    store: str


class LastKnown(NamedTuple):
    """No registry can be asked, and what was last delivered for the name is used, as the settings allow."""

    requested: str
    resolved: str
    known_at: str
    why: str


class FewThreads(NamedTuple):
    """The system has no thread for another worker; the transfer goes on with those that there are."""

    workers: int
    limits: str


class Restarted(NamedTuple):
    """Nothing that an earlier attempt left can be used again; ``why`` is "" where it is not known."""

    destination: str
    why: str


class Resumed(NamedTuple):
    """Verified bytes of an earlier attempt are used again."""

    size_bytes: int


class Progress(NamedTuple):
    """How far the transfer or the hashing is; sent several times a second.  ``done_bytes`` include those that were resumed."""

    done_bytes: int
    total_bytes: int
    done_files: int
    total_files: int
    elapsed_s: float
    resumed_bytes: int = 0


class Retried(NamedTuple):
    """An attempt failed and will be made again, as the ``attempt``-th of ``attempts``; 0 of 0 where they are not counted."""

    what: str
    why: str
    delay_s: float
    attempt: int = 0
    attempts: int = 0


class FileFailed(NamedTuple):
    """A file cannot be fetched; the others still are, and the delivery fails at their end."""

    path: str
    why: str


class ReusedFromStore(NamedTuple):
    """Files that the store has already; they are not fetched."""

    files: int
    size_bytes: int


class Materialized(NamedTuple):
    """A model came out of the store; ``ways`` says how, in words: "3 by reflink"."""

    destination: str
    ways: str
    size_bytes: int
    seconds: float


class Evicted(NamedTuple):
    """A model went from the store; ``freed_bytes`` are those that no other one shares."""

    uri: str
    freed_bytes: int
    why: str


class SetAside(NamedTuple):
    """A model of the store has damaged files, and is in quarantine now; the next delivery fetches them again."""

    uri: str
    example: str
    files: int


class Unverified(NamedTuple):
    """Files nobody vouches for: the origin declared no digest for them.  ``uri`` names one of several models."""

    files: int
    example: str
    uri: str = ""


class Unpacking(NamedTuple):
    """An archive becomes a tree."""

    name: str


class Backslashes(NamedTuple):
    """Members of a zip have names with backslashes: ``example`` is one of them, and ``path`` what it is delivered as."""

    archive: str
    members: int
    example: str
    path: str


class NotExecutable(NamedTuple):
    """Files that an archive says are programs, where the file system refuses to mark them so."""

    files: int
    example: str


class Decrypted(NamedTuple):
    """Encrypted files became what is in them; ``plain_files`` others were not encrypted."""

    resource: str
    files: int
    plain_files: int
    example: str


class Delivered(NamedTuple):
    """The model is in place."""

    destination: str
    files: int
    size_bytes: int
    seconds: float
    digest: str


class Recorded(NamedTuple):
    """A registry was told what was delivered where."""

    registry: str
    environment: str
    service: str


class NotRecorded(NamedTuple):
    """A registry could not be told; the model is in place all the same."""

    registry: str
    why: str


class NotTraced(NamedTuple):
    """A trace was asked for and does not arrive; the delivery goes on all the same."""

    why: str
    hint: str


class Switched(NamedTuple):
    """The agent has put another version of a model in place."""

    delivery: str
    version: str
    before: str


class Loaded(NamedTuple):
    """The model server has taken the version that is in place."""

    delivery: str
    version: str
    seconds: float


class RolledBack(NamedTuple):
    """The model server did not take a version; the one before is in place again, and it is not tried for a while."""

    delivery: str
    version: str
    before: str
    why: str
    again_in_s: float


class Postponed(NamedTuple):
    """There is another version, and it is not taken yet."""

    delivery: str
    version: str
    why: str


class Failed(NamedTuple):
    """What the agent tried for a delivery did not succeed; it goes on."""

    delivery: str
    code: str
    why: str
    hint: str


class Reconfigured(NamedTuple):
    """The agent has read its configuration anew."""

    deliveries: int


class NotReconfigured(NamedTuple):
    """The configuration has changed and cannot be used; the agent goes on with the one before."""

    why: str
    hint: str


class RolloutTold(NamedTuple):
    """What the controller says of a rollout, as an Event of Kubernetes has it; of none in particular, its name is empty."""

    rollout: str
    reason: str
    message: str


OfTheModel = Resolved | PassedOver | LastKnown | Signed | NotTrusted | Listed | OfAnotherMachine
OfTheDestination = (
    Waiting
    | Rehashing
    | Modified
    | AlreadyDelivered
    | StraysFound
    | StraysRemoved
    | NotRemoved
    | NotExecutable
    | Delivered
)
OfTheTransfer = (
    TlsChosen
    | FewThreads
    | Restarted
    | Resumed
    | Progress
    | Retried
    | FileFailed
    | RelayFailed
    | RelayRefuted
    | Unverified
    | Unpacking
    | Backslashes
    | Decrypted
)
OfTheStore = WaitingForStore | GivingWay | StoreBypassed | ReusedFromStore | Materialized | Evicted | SetAside
OfTheAgent = Switched | Loaded | RolledBack | Postponed | Failed | Reconfigured | NotReconfigured
OfReports = Recorded | NotRecorded | NotTraced | RolloutTold
Event = OfTheModel | OfTheDestination | OfTheTransfer | OfTheStore | OfTheAgent | OfReports


class Listener(Protocol):
    """Is told what happens; from any thread."""

    def __call__(self, event: Event, /) -> None:
        """Take note, and return soon: the delivery waits."""


def ignore(event: Event) -> None:
    """A listener for callers that do not want to know."""
