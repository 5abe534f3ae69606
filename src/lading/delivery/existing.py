"""What a destination has already, and need not be given again: asked here by every way to deliver, and by estimates."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import NamedTuple

from lading.delivery.resolve import ResolvedModel
from lading.destination.audit import ChangeDetector, find_strays, sized
from lading.destination.publish import note_times
from lading.destination.workspace import Workspace, best_effort
from lading.events import AlreadyDelivered, Listener, StraysFound
from lading.model import compare
from lading.model.checks import VerifyMode
from lading.model.compare import Holds
from lading.model.manifest import File, Manifest
from lading.session import Session


class Existing(NamedTuple):
    """What was delivered to a destination before, and whether a file of it is still as it was.

    ``manifest`` is None where there is none that can be read.  ``hashed`` fills with the files whose bytes had to
    be compared, by path, and whether they are what they were.
    """

    manifest: Manifest | None
    holds: Holds
    hashed: Mapping[str, bool]

    def whole(self, model: ResolvedModel, verify: VerifyMode) -> Manifest | None:
        """The manifest of what is there, if that is exactly what was listed."""
        old = self.manifest
        if old is None or not compare.is_delivered(model.listed, old, model.expected, verify, self.holds):
            return None
        return old

    def unchanged(self, model: ResolvedModel, verify: VerifyMode) -> dict[str, File]:
        """The files of the model that are there, by path."""
        if self.manifest is None:
            return {}
        return compare.unchanged(model.listed, self.manifest, model.expected, verify, self.holds)

    def same(self, sealed: Manifest) -> Manifest | None:
        """The manifest of what is there, if that has the files of this one, and its name."""
        old = self.manifest
        if old is None or not compare.is_same_model(sealed, old) or not self.is_untouched():
            return None
        return old

    def is_untouched(self) -> bool:
        """Whether every file is still as it was delivered."""
        return self.manifest is not None and all(map(self.holds, self.manifest.files))

    @property
    def changed(self) -> list[str]:
        """Paths of those hashed files that are not what they were."""
        return sorted(path for path, same in self.hashed.items() if not same)


def existing(workspace: Workspace, session: Session) -> Existing:
    """What this destination has; files with other times than they were delivered with are hashed."""
    detector = ChangeDetector(workspace.given, session.run)
    return Existing(workspace.delivered(), detector, detector.hashed)


def estimated(workspace: Workspace) -> Existing:
    """The same for an estimate, by sizes alone: nothing is hashed."""
    old = workspace.delivered() if workspace.destination.is_dir() else None
    return Existing(old, sized(workspace.destination), {})


def leave(workspace: Workspace, found: Existing, session: Session) -> None:
    """Let a locked destination that has all of it be as it is; its manifest tells the times that its files have now."""
    if found.hashed and found.manifest is not None:
        note_times(workspace, found.manifest)
    with best_effort(workspace.given, session.listener):
        workspace.dissolve()


def report_delivered(workspace: Workspace, manifest: Manifest, session: Session) -> None:
    """Say that the destination has the model already, and what else it holds; ``Untrusted`` as ``judge_content``."""
    judge_content(manifest, workspace.destination.joinpath, session)
    session.listener(AlreadyDelivered(str(workspace.given)))
    report_strays(workspace, manifest, session.listener)


def judge_content(manifest: Manifest, place: Callable[[str], Path], session: Session) -> None:
    """Judge the content of a model whose files are all there; ``Untrusted`` if a rule of today refuses it."""
    if session.settings.trust:
        # Here, and not above: most runs have no rules.
        from lading.delivery.formats import judge_formats

        judge_formats(manifest, place, session.settings.trust, session.listener)


def report_strays(workspace: Workspace, manifest: Manifest, listener: Listener) -> None:
    """Say what the destination holds besides its model: a server that reads the folder sees it, too."""
    if strays := find_strays(workspace.destination, manifest):
        listener(StraysFound(str(workspace.given), len(strays), strays[0]))
