"""Which files a destination has already: the one answer for deliveries, with a store and without, and for estimates."""

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
    """The manifest of a destination, and a check whether a file is still as it was delivered.

    ``manifest`` is None if there is none that can be read.  ``hashed`` records, by path, the files that had to be
    hashed, and whether they are unchanged.
    """

    manifest: Manifest | None
    holds: Holds
    hashed: Mapping[str, bool]

    def whole(self, model: ResolvedModel, verify: VerifyMode) -> Manifest | None:
        """The manifest of the destination, if it has exactly the listed files."""
        old = self.manifest
        if old is None or not compare.is_delivered(model.listed, old, model.expected, verify, self.holds):
            return None
        return old

    def unchanged(self, model: ResolvedModel, verify: VerifyMode) -> dict[str, File]:
        """The files of the model that the destination has unchanged, by path."""
        if self.manifest is None:
            return {}
        return compare.unchanged(model.listed, self.manifest, model.expected, verify, self.holds)

    def same(self, sealed: Manifest) -> Manifest | None:
        """The manifest of the destination, if it is of the same model as ``sealed``."""
        old = self.manifest
        if old is None or not compare.is_same_model(sealed, old) or not self.is_untouched():
            return None
        return old

    def is_untouched(self) -> bool:
        """Whether every file is still as it was delivered."""
        return self.manifest is not None and all(map(self.holds, self.manifest.files))

    @property
    def changed(self) -> list[str]:
        """The paths of hashed files that have changed."""
        return sorted(path for path, same in self.hashed.items() if not same)


def existing(workspace: Workspace, session: Session) -> Existing:
    """The state of a destination; a file whose time has changed is hashed."""
    detector = ChangeDetector(workspace.given, session.run)
    return Existing(workspace.delivered(), detector, detector.hashed)


def estimated(workspace: Workspace) -> Existing:
    """The state of a destination by sizes alone, for an estimate: nothing is hashed."""
    old = workspace.delivered() if workspace.destination.is_dir() else None
    return Existing(old, sized(workspace.destination), {})


def leave(workspace: Workspace, found: Existing, session: Session) -> None:
    """Leave a locked destination that has the model unchanged, but for the files' times in its manifest."""
    if found.hashed and found.manifest is not None:
        note_times(workspace, found.manifest)
    with best_effort(workspace.given, session.listener):
        workspace.dissolve()


def report_delivered(workspace: Workspace, manifest: Manifest, session: Session) -> None:
    """Report that the destination has the model already, and its strays; ``Untrusted`` as ``judge_content``."""
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
    """Report the strays of a destination: a server that reads the folder sees them, too."""
    if strays := find_strays(workspace.destination, manifest):
        listener(StraysFound(str(workspace.given), len(strays), strays[0]))
