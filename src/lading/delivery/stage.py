"""From the origin: the missing files of a model are fetched into its workspace, verified, unpacked and decrypted.

    transfer   missing files arrive in the workspace, verified        (transfer)
    unpack     archives become a tree                                 (unpack)
    decrypt    encrypted files are decrypted                           (decrypt)
    publish    the tree becomes the destination, the manifest last    (destination)

Several models share one scheduler, and none is published before all have been received.
"""

import contextlib
from collections.abc import Iterable, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

from lading.delivery.existing import judge_content, report_strays
from lading.delivery.plan import Delivery, Staged, can_go_on, has_bytes, naming
from lading.delivery.resolve import ARCHIVES
from lading.destination import publish as destination
from lading.errors import DeadlineExceeded, Interrupted, LadingError, Unavailable
from lading.events import Delivered, Unpacking, ignore
from lading.model.listing import Listing
from lading.model.manifest import Manifest
from lading.model.pattern import chooser
from lading.session import Session
from lading.settings.confidential import read_confidential
from lading.system.disk import as_lading_errors
from lading.system.folders import move_into
from lading.transfer.job import Job, Unpacker
from lading.transfer.journal import Journal, read_journal, usable
from lading.transfer.scheduler import transfer

if TYPE_CHECKING:
    # Loaded where it is asked for.
    from lading.delivery.decrypt import Decrypter


_ANEW = "it starts from the beginning, since nothing that was received can be used again"


def stage(deliveries: Sequence[Delivery], session: Session, blob_algorithm: str = "") -> list[Staged]:
    """Fetch the missing files of each delivery into its workspace; no file has its final name yet.

    ``blob_algorithm`` is the algorithm that a store keeps files by, "" without one.
    """
    if not deliveries:
        return []
    staged = [Staged(each.workspace, None, each.in_place) for each in deliveries if each.in_place is not None]
    lacking = [each for each in deliveries if each.in_place is None]
    with ExitStack() as stack:
        jobs = [_job(each, session, stack, blob_algorithm) for each in lacking]
        opener = _opener(session) if jobs else None
        sealed = _transfer(lacking, jobs, session)
        for delivery, (root, manifest) in zip(lacking, list(map(_tree, lacking, jobs, sealed)), strict=True):
            if opener is not None:
                manifest = opener.open(root, manifest, delivery.unchanged)
            staged.append(Staged(delivery.workspace, root, manifest, delivery.unchanged))
    return staged


def publish(staged: Iterable[Staged], session: Session, *, quiet: bool = False) -> dict[Path, Manifest]:
    """Give each model its final name; returns the manifests by destination.

    What is brought to a store is ``quiet``: it is judged when it leaves that, by the rules of that day.
    """
    listener = ignore if quiet else session.listener
    staged = list(staged)
    if not quiet:
        for each in staged:
            judge_content(each.manifest, each.place, session)
    manifests: dict[Path, Manifest] = {}
    for workspace, root, manifest, unchanged in staged:
        if root is not None:
            manifest = manifest._replace(seconds=session.seconds)
            with naming(workspace):
                alone = destination.publish(workspace, root, manifest, unchanged, listener)
            listener(delivered_event(workspace.given, manifest))
            if not alone:
                report_strays(workspace, manifest, listener)
        manifests[workspace.given] = manifest
    return manifests


def delivered_event(folder: Path, manifest: Manifest) -> Delivered:
    """The event of a model that is delivered."""
    return Delivered(str(folder), len(manifest.files), manifest.size_bytes, manifest.seconds, str(manifest.digest))


def _job(delivery: Delivery, session: Session, stack: ExitStack, blob_algorithm: str) -> Job:
    """The job of one delivery for the transfer; its journal is closed at the end of ``stack``."""
    model, workspace, verify = delivery.model, delivery.workspace, session.settings.verify
    journal = Journal(workspace.journal, origin=model.listed.origin)
    stack.callback(journal.close)
    unpacker = _unpacker(model.listed, workspace.tree, session)
    return Job(
        model.source,
        delivery.missing,
        workspace.stage,
        journal,
        verify,
        model.expected,
        unpacker,
        blob_algorithm=blob_algorithm,
        relay_by=session.settings.relay_for(model.resolution.uri),
    )


def _transfer(deliveries: Sequence[Delivery], jobs: Sequence[Job], session: Session) -> list[Manifest]:
    try:
        return transfer(jobs, session)
    except (Unavailable, Interrupted, KeyboardInterrupt) as error:
        if not _is_lost(deliveries, jobs):
            raise
        # Nobody is promised that the next run resumes.
        if isinstance(error, KeyboardInterrupt):
            raise KeyboardInterrupt(f"run it again: {_ANEW}") from error
        if isinstance(error, DeadlineExceeded):
            error.hint = f"raise the deadline: {_ANEW}"
        elif isinstance(error, Interrupted) or not error.hint:
            error.hint = f"run it again: {_ANEW}"
        raise


def _is_lost(deliveries: Sequence[Delivery], jobs: Sequence[Job]) -> bool:
    """Whether the next run must start from the beginning."""
    begun = False
    for delivery, job in zip(deliveries, jobs, strict=True):
        workspace, listed = delivery.workspace, job.listed
        with contextlib.suppress(LadingError):
            job.journal.flush()
        if any(usable(listed.files, read_journal(workspace.journal, listed.origin))):
            return False
        begun |= has_bytes(workspace, listed.files) or not any(map(can_go_on, listed.files))
    return begun


def _unpacker(listed: Listing, tree: Path, session: Session) -> Unpacker | None:
    layers = [file for file in listed.files if file.layer is not None]
    if not layers:
        return None
    # Here, and not above: most models are no archive, and its formats take 15 ms to load.
    from lading.unpack.layers import Layers

    settings = session.settings
    session.listener(Unpacking(f"{len(layers)} layers" if len(layers) > 1 else layers[0].path))
    if layers[0].path.lower().endswith(ARCHIVES):
        # Chosen itself, by its name.
        return Layers(tree, settings.limits, listener=session.listener)
    return Layers(tree, settings.limits, chooser(settings.allow, settings.ignore), session.listener)


def _opener(session: Session) -> "Decrypter | None":
    """The decrypter, or None if the settings do not ask for one."""
    settings = read_confidential(session.settings.variables)
    if settings is None:
        return None
    from lading.delivery.decrypt import Decrypter

    return Decrypter(settings, session)


def _tree(delivery: Delivery, job: Job, sealed: Manifest) -> tuple[Path, Manifest]:
    """The folder to publish, and the manifest of its files and the unchanged ones of the destination."""
    workspace, unpacked = delivery.workspace, job.unpacked
    layers = {file.path for file in job.layers}
    plain = [*(file for file in sealed.files if file.path not in layers), *delivery.present]
    if unpacked is None:
        return workspace.stage, sealed._replace(files=tuple(sorted(plain)))
    files = Manifest.of((*unpacked.files, *plain)).files
    with as_lading_errors(workspace.tree):
        move_into(workspace.stage, workspace.tree)
    archives = tuple(file for file in sealed.files if file.path in layers)
    return workspace.tree, sealed._replace(files=files, archives=archives, folders=unpacked.folders)
