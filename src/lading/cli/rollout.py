"""``lading rollout``: show ModelRollouts, and approve a version, pause, resume or go back.

Each of these actions sets a field of the ModelRollout's spec, as kubectl could; the controller does the rest.
"""

import argparse
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from lading.cli.options import add_output_options, read_settings
from lading.cli.output import show, show_json
from lading.cli.reporters import reporter_of_questions
from lading.cli.rollout_output import Rollout, facts, row, shown, table, told
from lading.errors import NotFound, UsageError
from lading.kubernetes.api_server import ApiServer, Object
from lading.kubernetes.refused import Missing
from lading.kubernetes.rollouts import ROLLOUTS
from lading.rollout.in_spec import APPROVAL
from lading.rollout.in_status import read_state
from lading.rollout.state import Version
from lading.session import Session
from lading.settings.kubernetes import read_access
from lading.text.printable import printable
from lading.text.suggest import suggest

_MANAGER = "lading-cli"
# The results in the history of versions that have served.
_DID = ("Pinned", "Adopted", "Succeeded")


def add_arguments(group: argparse.ArgumentParser) -> None:
    group.description = (
        "Look at the ModelRollouts of a cluster, and tell them what to do. The cluster is the one of --kubeconfig, of "
        "KUBECONFIG, of the pod that this runs in, or of ~/.kube/config."
    )
    actions = group.add_subparsers(title="commands", metavar="COMMAND", required=True)

    def action(name: str, run: Callable[[argparse.Namespace], int], help_: str, more: str = "") -> Any:
        command = actions.add_parser(name, help=help_, description=f"{help_[0].upper()}{help_[1:]}.{more}")
        if run is not ls:
            command.add_argument("name", metavar="NAME", help="of the ModelRollout")
        _add_cluster_options(command)
        add_output_options(command, "print the result as JSON")
        command.set_defaults(run=run)
        return command

    everywhere = "of all namespaces"
    action("ls", ls, "list the rollouts").add_argument("-A", "--all-namespaces", action="store_true", help=everywhere)
    action("show", show_one, "show what a rollout has, what it waits for, and what came before")
    approve_command = action("approve", approve, "let the candidate go")
    digest_help = "the beginning of the candidate's digest: nothing else is approved"
    approve_command.add_argument("digest", metavar="DIGEST", nargs="?", default="", help=digest_help)
    pause_more = " A candidate that is being rolled out is taken back."
    action("pause", pause, "stay at the version that the service has", pause_more)
    action("resume", resume, "follow the channel again, after pause or back")
    back_command = action("back", back, "go back to the version before, and stay there")
    back_command.add_argument(
        "--to", metavar="VERSION", default="", help="another one: its name, or its digest's beginning"
    )


def _add_cluster_options(command: argparse.ArgumentParser) -> None:
    command.add_argument("-n", "--namespace", metavar="NAME", default="", help="instead of the context's")
    command.add_argument("--kubeconfig", metavar="FILE", default="", help="instead of KUBECONFIG")
    command.add_argument("--context", metavar="NAME", default="", help="of the kubeconfig, instead of the current one")


def ls(arguments: argparse.Namespace) -> int:
    with _server(arguments) as server:
        namespace = "" if arguments.all_namespaces else server.namespace
        rollouts = [_read(found) for found in _list(server, namespace)]
    if arguments.json:
        show_json([facts(rollout.found) for rollout in rollouts])
        return 0
    if not rollouts:
        show(f"no rollouts in {printable(namespace) or 'the cluster'}")
        return 0
    names = ["NAMESPACE"] if arguments.all_namespaces else []
    rows = [[*names, "NAME", "SERVICE", "UPDATE", "PHASE", "SINCE", "VERSION", "CANDIDATE"]]
    rows += [row(rollout, wide=arguments.all_namespaces) for rollout in rollouts]
    show("\n".join(table(rows)))
    return 0


def show_one(arguments: argparse.Namespace) -> int:
    with _server(arguments) as server:
        rollout = _get(server, arguments.name)
    if arguments.json:
        show_json(facts(rollout.found))
    else:
        show("\n".join(told(rollout)))
    return 0


def approve(arguments: argparse.Namespace) -> int:
    with _server(arguments) as server:
        rollout = _get(server, arguments.name)
        candidate = _to_approve(rollout, arguments.digest)
        step = _step_to_approve(rollout)
        approved = (
            {"approveStep": {"version": candidate.digest, "step": step}} if step else {"approve": candidate.digest}
        )
        _tell(server, rollout, approved)
    return _said(arguments, rollout, candidate, f"may go to {candidate}" + (f", past step {step}" if step else ""))


def pause(arguments: argparse.Namespace) -> int:
    with _server(arguments) as server:
        rollout = _get(server, arguments.name)
        current = rollout.state.current
        if current is None:
            raise UsageError(
                f"{rollout.name} has no version yet to stay at", hint=f"lading rollout show {rollout.name}"
            )
        _stay(server, rollout, current)
    return _said(arguments, rollout, current, f"stays at {current}")


def resume(arguments: argparse.Namespace) -> int:
    with _server(arguments) as server:
        rollout = _get(server, arguments.name)
        if not rollout.spec.get("pin"):
            raise UsageError(f"{rollout.name} is not paused", hint=f"lading rollout show {rollout.name}")
        _tell(server, rollout, {"pin": None})
    return _said(arguments, rollout, None, f"follows {', '.join(rollout.state.channels) or 'its channel'} again")


def back(arguments: argparse.Namespace) -> int:
    with _server(arguments) as server:
        rollout = _get(server, arguments.name)
        version = _before(rollout, arguments.to)
        _stay(server, rollout, version)
    return _said(arguments, rollout, version, f"goes back to {version}, and stays there until it is resumed")


def _tell(server: ApiServer, rollout: Rollout, spec: Object) -> None:
    server.patch(ROLLOUTS, rollout.found, {"spec": spec})


def _stay(server: ApiServer, rollout: Rollout, version: Version) -> None:
    if rollout.spec.get("update") == "Off":
        raise UsageError(f"{rollout.name} is Off: nothing is written to its service", hint="set spec.update first")
    _tell(server, rollout, {"pin": version.pin})


def _to_approve(rollout: Rollout, digest: str) -> Version:
    candidate, update = rollout.state.candidate, rollout.spec.get("update")
    hint = f"lading rollout show {rollout.name}"
    if update != "Approve" and not _step_to_approve(rollout):
        raise UsageError(
            f"{rollout.name} waits for nobody's approval: its update is {printable(str(update))}", hint=hint
        )
    if candidate is None:
        raise NotFound(f"{rollout.name} has no candidate to approve", hint=hint)
    if not candidate.digest.startswith(digest):
        raise UsageError(f"the candidate of {rollout.name} is another one: {shown(candidate)}", hint=hint)
    return candidate


def _step_to_approve(rollout: Rollout) -> int:
    """The step of a canary that waits for a person; 0 if none does."""
    canary, strategy = rollout.state.canary, rollout.spec.get("strategy") or {}
    steps = (strategy.get("canary") or {}).get("steps") or ()
    is_there = canary is not None and canary.step <= len(steps)
    return canary.step if canary and is_there and steps[canary.step - 1].get("pause") == APPROVAL else 0


def _before(rollout: Rollout, wanted: str) -> Version:
    """The version to go back to: the one that is named, else the last other version that has served."""
    state = rollout.state
    served = [past.version for past in state.history if past.result in _DID]
    if state.current and not (state.is_moving or wanted):
        served = [version for version in served if version.pin != state.current.pin]
    found = [each for each in served if wanted in ("", each.name) or each.digest.startswith(wanted)]
    if found:
        return found[0]
    named = f" {printable(wanted)}" if wanted else " before"
    hint = suggest(wanted, [each.name for each in served]) or f"lading rollout show {rollout.name}"
    raise NotFound(f"{rollout.name} has no version{named} in its history", hint=hint)


def _said(arguments: argparse.Namespace, rollout: Rollout, version: Version | None, words: str) -> int:
    if arguments.json:
        show_json({"name": rollout.found["metadata"]["name"], "pin": version.pin if version else None})
    else:
        show(f"{rollout.name} {printable(words)}")
    return 0


@contextmanager
def _server(arguments: argparse.Namespace) -> Iterator[ApiServer]:
    settings = read_settings(arguments)
    access = read_access(
        settings.variables, settings.network, kubeconfig=arguments.kubeconfig, context=arguments.context
    )
    access = access._replace(namespace=arguments.namespace or access.namespace)
    with reporter_of_questions(access.server) as tell, Session(settings, tell) as session:
        yield ApiServer(access, session.http, manager=_MANAGER)


def _get(server: ApiServer, name: str) -> Rollout:
    try:
        return _read(server.get(ROLLOUTS, name, server.namespace))
    except Missing as error:
        there = [each["metadata"]["name"] for each in _list(server, server.namespace)]
        raise error.rephrased(hint=suggest(name, there) or "lading rollout ls shows all") from error


def _list(server: ApiServer, namespace: str) -> list[Object]:
    try:
        return server.list_all(ROLLOUTS, namespace)
    except Missing as error:
        raise error.rephrased(hint="this cluster has no ModelRollouts: apply deploy/controller") from error


def _read(found: Object) -> Rollout:
    return Rollout(found, read_state(found.get("status") or {}))
