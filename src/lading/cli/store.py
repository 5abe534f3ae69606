"""``lading store``: list, verify and prune the models of the node's store."""

import argparse
import contextlib
import os
import time
from collections.abc import Callable, Iterator
from typing import Any

from lading.cli.options import add_output_options, read_settings
from lading.cli.output import show, show_json, show_json_list
from lading.cli.reporters import reporter
from lading.errors import IntegrityError, NotAllowed, NotFound, UsageError
from lading.model.uri import redact
from lading.store import eviction, inspection
from lading.store.store import Model, Store
from lading.system.disk import disk_error, free_bytes
from lading.text.printable import printable
from lading.text.suggest import suggest
from lading.text.units import count, size

_SHOWN_DIGITS = 12
_MODEL_HELP = "the first digits of its key, or the URI that it was asked for with"


def add_arguments(group: argparse.ArgumentParser) -> None:
    group.description = "List, verify and prune the store that LADING_STORE or the configuration names."
    actions = group.add_subparsers(title="commands", metavar="COMMAND", required=True)

    def action(name: str, run: Callable[[argparse.Namespace], int], help_: str, more: str = "") -> Any:
        command = actions.add_parser(name, help=help_, description=f"{help_[0].upper()}{help_[1:]}.{more}")
        add_output_options(command, "print the result as JSON")
        command.set_defaults(run=run)
        return command

    action("ls", ls, "list the models: sizes, last use, who needs or keeps them")
    prune_more = " What is needed now, and what is kept, stays."
    action("prune", prune, "evict by the settings' age and watermarks, and remove what nothing needs", prune_more)
    action("verify", verify, "hash every file again; damaged models go to quarantine")
    path_help = "print the folder of the store, or of a model in it"
    action("path", path, path_help).add_argument("model", metavar="MODEL", nargs="?", help=_MODEL_HELP)
    action("rm", rm, "remove a model").add_argument("model", metavar="MODEL", help=_MODEL_HELP)
    keep_command = action("keep", keep, "keep a model from being evicted, under a name")
    keep_command.add_argument("model", metavar="MODEL", help=_MODEL_HELP)
    keep_command.add_argument("name", metavar="NAME", help="who keeps it; a name keeps one model")
    action("unkeep", unkeep, "keep no model under a name any more").add_argument("name", metavar="NAME")


def ls(arguments: argparse.Namespace) -> int:
    with _open(arguments, writing=False) as store:
        models = store.models()
        used, free = store.used_bytes(), free_bytes(store.root)
        if arguments.json:
            report = {"path": str(store.root), "used_bytes": used, "free_bytes": free}
            show_json_list(report, "models", (_facts(model, store.own_bytes(model.key)) for model in models))
            return 0
        if models:
            show(f"{'KEY':{_SHOWN_DIGITS}}  {'SIZE':>10}  {'ONLY ITS':>10}  {'LAST USE':16}  MODEL")
        for model in models:
            sizes = f"{size(model.size_bytes):>10}  {size(store.own_bytes(model.key)):>10}"
            why = _why_it_stays(model)
            uri = printable(model.requested) + (f"  ({printable(why)})" if why else "")
            show(f"{model.key[:_SHOWN_DIGITS]}  {sizes}  {_moment(model.used_at_s)}  {uri}")
        show(f"{count(len(models), 'model')}, {size(used)} in {printable(str(store.root))}, {size(free)} free")
    return 0


def prune(arguments: argparse.Namespace) -> int:
    with _open(arguments) as store:
        gone = eviction.prune(store)
        swept_bytes = eviction.collect_garbage(store)
    if arguments.json:
        show_json({"gone": [each._asdict() for each in gone], "swept_bytes": swept_bytes})
        return 0
    for each in gone:
        show(f"evicted {printable(each.uri)}, {size(each.freed_bytes)}: {each.why}")
    if swept_bytes:
        show(f"removed {size(swept_bytes)} that nothing needs")
    if not gone and not swept_bytes:
        show("nothing to do")
    return 0


def verify(arguments: argparse.Namespace) -> int:
    with _open(arguments) as store, reporter() as report:
        found = inspection.verify(store, report)
    if arguments.json:
        rotten = [each._asdict() for each in found.rotten]
        show_json({"ok": not rotten, "models": found.models, "bytes": found.size_bytes, "rotten": rotten})
    if found.rotten:
        named = "; ".join(f"{each.uri or each.key}: {', '.join(each.paths)}" for each in found.rotten)
        raise IntegrityError(
            f"{len(found.rotten)} of {count(found.models, 'model')} damaged, and in quarantine now: {printable(named)}",
            hint="they are fetched again when they are needed; check the disk",
        )
    if not arguments.json:
        show(f"ok: {count(found.models, 'model')}, {size(found.size_bytes)}")
    return 0


def path(arguments: argparse.Namespace) -> int:
    with _open(arguments, writing=False) as store:
        folder = str(_chosen(store, arguments.model).folder if arguments.model else store.root)
    if arguments.json:
        show_json({"path": folder})
    else:
        show(folder)
    return 0


def rm(arguments: argparse.Namespace) -> int:
    with _open(arguments) as store:
        model = _chosen(store, arguments.model)
        why = _why_it_stays(model)
        if why:
            raise UsageError(
                f"{printable(model.requested)} is {printable(why)}", hint="wait, or lading store unkeep NAME"
            )
        freed = store.remove(model.key)
    if arguments.json:
        show_json({"key": model.key, "freed_bytes": freed})
    else:
        show(f"removed {printable(model.requested)}, {size(freed)}")
    return 0


def keep(arguments: argparse.Namespace) -> int:
    with _open(arguments) as store:
        model = _chosen(store, arguments.model)
        store.references.keep(arguments.name, model.key)
    if arguments.json:
        show_json({"key": model.key, "name": arguments.name})
    else:
        show(f"{printable(arguments.name)} keeps {printable(model.requested)}")
    return 0


def unkeep(arguments: argparse.Namespace) -> int:
    with _open(arguments) as store:
        names = {name: key for key, names in store.references.by_key().items() for name in names}
        if arguments.name not in names:
            raise NotFound(
                f"no model is kept under the name {printable(arguments.name)}", hint=suggest(arguments.name, names)
            )
        store.references.release(arguments.name)
    if arguments.json:
        show_json({"key": names[arguments.name], "name": arguments.name})
    else:
        show(f"{printable(arguments.name)} keeps nothing any more")
    return 0


@contextlib.contextmanager
def _open(arguments: argparse.Namespace, *, writing: bool = True) -> Iterator[Store]:
    """Open the store that the settings name; an ``OSError`` in this block is raised as lading's own error."""
    settings = read_settings(arguments)
    if not settings.store.path:
        raise UsageError("no store is configured", hint="set LADING_STORE, or store.path in lading.yaml")
    shown = printable(settings.store.path)
    if not os.path.lexists(settings.store.path):
        # A delivery creates the store; a command with a wrong path must not.
        raise NotFound(f"the store {shown} does not exist", hint="the first delivery creates it")
    store = Store(settings.store)
    if writing and not store.writable:
        raise NotAllowed(f"the store {shown} cannot be written", hint=f"it must be writable by user {os.geteuid()}")
    try:
        yield store
    except OSError as error:
        raise disk_error(error, error.filename or store.root) from error


def _chosen(store: Store, wanted: str) -> Model:
    """The only model that matches the argument."""
    models = store.models()
    shown = redact(wanted)
    found = [model for model in models if model.key.startswith(wanted)]
    found = found or [model for model in models if shown in (model.requested, model.resolved)]
    if not found:
        hint = suggest(shown, [model.requested for model in models]) or "lading store ls shows all"
        raise NotFound(f"the store has no model {printable(shown)}", hint=hint)
    if len(found) > 1:
        keys = ", ".join(model.key[:_SHOWN_DIGITS] for model in found)
        raise UsageError(f"{printable(shown)} could be any of {len(found)} models", hint=f"name one of them: {keys}")
    return found[0]


def _why_it_stays(model: Model) -> str:
    kept = f"kept by {', '.join(model.references)}" if model.references else ""
    return ", ".join(filter(None, ("in use" if model.leased else "", kept)))


def _moment(time_s: float) -> str:
    return time.strftime("%Y-%m-%d %H:%M", time.localtime(time_s)) if time_s else "never"


def _facts(model: Model, own_bytes: int) -> dict[str, Any]:
    return {
        "key": model.key,
        "path": str(model.folder),
        "requested": model.requested,
        "resolved": model.resolved,
        "pin": model.pin,
        "files": model.files,
        "bytes": model.size_bytes,
        "own_bytes": own_bytes,
        "used_at": model.used_at_s,
        "in_use": model.leased,
        "kept_by": model.references,
    }
