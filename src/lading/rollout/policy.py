"""The policy of a rollout: what its owner has configured."""

from typing import Literal, NamedTuple

from lading.model.reference import SCHEMES
from lading.rollout.schedule import Window
from lading.rollout.state import Version
from lading.rollout.verdict import Check

# The schemes of what services follow.  A service's URI is not trusted: it must not lead to files of the machine that
# asks, or to hosts of the cluster's network.
FOLLOWED = {*SCHEMES, "s3", "gs", "hf", "modelscope"}

Update = Literal["Auto", "Approve", "Notify", "Off"]


class Step(NamedTuple):
    """A step of a canary: the candidate's part of the requests, and the pause after it; None is until approved."""

    percent: int
    pause_s: float | None


class Approved(NamedTuple):
    """The steps of a canary that a person has let end: up to ``step``, of the version with this digest."""

    digest: str
    step: int


class Policy(NamedTuple):
    """How a service follows its channel.

    When: ``hold_s`` is how long the channel must have named a version before it is taken; ``max_concurrent`` is how
    many services of the namespace may try the same version at a time, 0 for any number.

    Which: ``versions`` is the range of allowed versions (">=1.2, <2"), ``signed_by`` who may have signed them (empty:
    anybody), and ``approve`` the digest of the version that may be taken under ``Approve``.  ``pin`` is a version to
    stay at, whatever the channel names.

    How: ``steps`` are those of a canary; without any, all pods are replaced at once.  ``approved`` are those that need
    not be waited for any more.  ``checks`` must pass as well before a version counts as served, and ``deadline_s`` is
    how long the pods may take to serve it; one that is rolled back is not tried again for ``quarantine_s``, then for
    twice as long each time.

    ``keep`` is the length of the history; ``record`` says whether the registry is told what the service has.
    """

    update: Update = "Auto"
    every_s: float = 60.0
    hold_s: float = 300.0
    window: Window | None = None
    versions: str = ""
    signed_by: tuple[str, ...] = ()
    approve: str = ""
    pin: Version | None = None
    deadline_s: float = 1800.0
    quarantine_s: float = 3600.0
    max_concurrent: int = 0
    keep: int = 5
    checks: tuple[Check, ...] = ()
    record: bool = False
    steps: tuple[Step, ...] = ()
    approved: Approved | None = None
