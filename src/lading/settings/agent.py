"""The agent's settings: the sections ``deliveries`` and ``agent`` of the configuration file.

deliveries:
  - name: iris
    uri: model-registry://iris@champion
    destination: /mnt/models/iris
    every_s: 60
    on_change: {load: http://127.0.0.1:8080, model: iris}
agent:
  port: 9090
"""

import os
import re
from collections.abc import Mapping, Sequence
from itertools import combinations
from types import MappingProxyType
from typing import Any, Literal, NamedTuple
from urllib.parse import urlsplit

from lading.errors import UsageError
from lading.model.checks import VerifyMode
from lading.model.uri import ModelURI
from lading.settings.ranges import parse_range
from lading.settings.section import errors_name, read_section
from lading.settings.settings import Settings, parse_verify
from lading.settings.variables import MOST_PORT
from lading.text.printable import printable

PORT = 9090
Layout = Literal["link", "numbered", "folder"]
_NAME = re.compile(r"[A-Za-z0-9]([A-Za-z0-9._-]{0,61}[A-Za-z0-9])?")
_MODEL = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,254}")
# Examples for keys whose default is no example.
_EXAMPLES = {
    "name": "iris",
    "uri": "model-registry://iris@champion",
    "destination": "/mnt/models/iris",
    "allow": '["*.onnx"]',
    "ignore": '["*.md"]',
    "range": '">=1.2, <2"',
    "hold_s": "3600",
    "load": "http://127.0.0.1:8080",
    "touch": "/mnt/models/changed",
    "post": "http://127.0.0.1:8080/changed",
    "exit": "3",
    "model": "iris",
    "probe": "{inputs: [{name: x, shape: [1, 4], datatype: FP32, data: [5.1, 3.5, 1.4, 0.2]}]}",
    "token_file": "/etc/lading/token",
    "certificate": "/etc/lading/tls.crt",
    "key": "/etc/lading/tls.key",
    "mlflow_secret_file": "/etc/lading/mlflow-secret",
    "canary": "{share: 0.1, hold_s: 3600}",
    "prefetch": "{namespace: models}",
    "namespace": "models",
    "labels": "team=tabular",
    "on_change": "{load: http://127.0.0.1:8080, model: iris}",
}


class Canary(NamedTuple):
    """A ``share`` of the hosts (0 to 1) takes a new version at once, the others ``hold_s`` seconds later."""

    share: float = 0.1
    hold_s: float = 3600.0


class OnChange(NamedTuple):
    """How the model server is told of a new version, in one of four ways.

    ``load`` is the URL of a server with the Open Inference Protocol's repository extension, ``touch`` a file
    to write, ``post`` a URL to call, ``exit`` the exit code of the agent.  Three fields belong to ``load``:
    ``model`` is the model's name on the server, ``ready_s`` the time that loading may take, ``probe`` the body of
    an inference request that must succeed.  ``token_file`` holds a bearer token for ``load`` and ``post``.
    """

    load: str = ""
    touch: str = ""
    post: str = ""
    exit: int = 0
    model: str = ""
    ready_s: float = 300.0
    probe: Mapping[str, Any] = MappingProxyType({})
    token_file: str = ""


class Delivery(NamedTuple):
    """One model that is kept current: at its ``destination``, or in the store alone.

    ``layout`` is the arrangement of versions at the destination (docs/agent.md); ``keep`` is the number of old
    versions that stay.  A cycle runs every ``every_s`` seconds, varied by the share ``jitter``.  ``range`` limits
    a registry's versions (semver.org); ``hold_s`` is how long a version must be known before it is delivered.
    """

    name: str
    uri: str
    destination: str = ""
    layout: Layout = "link"
    every_s: float = 60.0
    jitter: float = 0.1
    verify: VerifyMode | None = None
    allow: tuple[str, ...] = ()
    ignore: tuple[str, ...] = ()
    range: str = ""
    hold_s: float = 0.0
    canary: Canary | None = None
    keep: int = 1
    on_change: OnChange | None = None

    def settings(self, settings: Settings) -> Settings:
        """The settings with which this model is delivered."""
        return settings._replace(
            verify=self.verify or settings.verify,
            allow=self.allow or settings.allow,
            ignore=self.ignore or settings.ignore,
        )


class Prefetch(NamedTuple):
    """The ModelRollouts whose versions the agent keeps in its store.

    They are those of ``namespace``, or of all if it is empty, which the label selector ``labels`` matches.
    """

    namespace: str = ""
    labels: str = ""


class AgentSettings(NamedTuple):
    """The deliveries that the agent keeps current, and its HTTP server.

    With ``prefetch``, the versions of rollouts of the cluster are kept in the store, too.
    At most ``parallel`` cycles run at a time.  ``port`` 0 means any free port.  With ``token_file``, all but the
    health endpoints require its text as a bearer token; ``certificate`` and ``key`` are files of PEM text.
    ``mlflow_secret_file`` holds the secret of MLflow's webhooks; without it every webhook is refused.
    """

    deliveries: tuple[Delivery, ...] = ()
    prefetch: Prefetch | None = None
    parallel: int = 2
    listen: str = "127.0.0.1"
    port: int = PORT
    token_file: str = ""
    certificate: str = ""
    key: str = ""
    mlflow_secret_file: str = ""


def read_agent(settings: Settings) -> AgentSettings:
    """Read the agent's part of the configuration; ``UsageError`` for anything in it that is not understood."""
    with errors_name(settings.file):
        has_store = bool(settings.store.path)
        deliveries = tuple(
            _delivery(item, number, has_store=has_store) for number, item in enumerate(settings.deliveries, 1)
        )
        _refuse_common_folders(deliveries)
        own = _own(settings.agent, deliveries)
        if own.prefetch and not has_store:
            raise UsageError(
                "agent.prefetch is set, and no store is configured that could keep models",
                hint="give the configuration a store.path",
            )
        return own


def _own(item: Mapping[str, Any], deliveries: tuple[Delivery, ...]) -> AgentSettings:
    if "deliveries" in item:
        raise UsageError("agent has the unknown key 'deliveries'", hint="write it beside agent, not below it")
    own = read_section(AgentSettings, item, "agent", examples=_EXAMPLES, apart={"deliveries": deliveries})
    if own.port > MOST_PORT:
        raise UsageError(f"agent.port is {own.port}", hint=f"write a number up to {MOST_PORT}")
    if own.parallel < 1:
        raise UsageError("agent.parallel is 0", hint="one delivery at a time is the least")
    if bool(own.certificate) != bool(own.key):
        lacking = "key" if own.certificate else "certificate"
        raise UsageError(
            "agent has a certificate without a key, or a key without a certificate",
            hint=f"write agent.{lacking}, too, for example {_EXAMPLES[lacking]}",
        )
    return own


def _refuse_common_folders(deliveries: Sequence[Delivery]) -> None:
    for first, second in combinations(deliveries, 2):
        if first.name == second.name:
            raise UsageError(f"two deliveries are called {printable(first.name)}", hint="each needs a name of its own")
        if share_a_folder(first, second):
            raise UsageError(
                f"the destinations of {printable(first.name)} and {printable(second.name)} overlap: one lies within the other",
                hint="each needs a folder of its own",
            )


def share_a_folder(first: Delivery, second: Delivery) -> bool:
    """Whether the destination of one delivery lies within that of the other."""
    paths = first.destination, second.destination
    return all(paths) and os.path.commonpath(paths) in paths


def _delivery(item: Mapping[str, Any], number: int, *, has_store: bool) -> Delivery:
    item = dict(item)
    where = f"delivery {printable(str(item.get('name') or number))}"
    if missing := [key for key in ("name", "uri") if not item.get(key)]:
        raise UsageError(f"{where} has no {missing[0]}", hint="each needs a name and a uri, and usually a destination")
    if "destination" not in item:
        _check_kept(item, where, has_store=has_store)
    if "verify" in item:
        item["verify"] = parse_verify(item["verify"], f"{where}: verify")
    delivery = read_section(Delivery, item, where, examples=_EXAMPLES)
    if "destination" in item:
        delivery = delivery._replace(destination=_destination(delivery, where))
    _check(delivery, where)
    return delivery


def _check_kept(item: Mapping[str, Any], where: str, *, has_store: bool) -> None:
    if not has_store:
        raise UsageError(
            f"{where} has no destination, and no store is configured that could keep it",
            hint="give it a destination, or the configuration a store.path",
        )
    if of_a_destination := [key for key in ("layout", "keep", "on_change") if key in item]:
        raise UsageError(
            f"{where} has no destination, so it cannot have {of_a_destination[0]}",
            hint="it is kept in the store alone: leave that out, or give it a destination",
        )


def _destination(delivery: Delivery, where: str) -> str:
    path = os.path.normpath(delivery.destination)
    if not path.startswith("/") or path == "/":
        raise UsageError(
            f"{where} has the destination {printable(delivery.destination)!r}", hint=f"write {_EXAMPLES['destination']}"
        )
    return path


def _check(delivery: Delivery, where: str) -> None:
    if not _NAME.fullmatch(delivery.name):
        raise UsageError(f"{where} needs another name", hint="letters, digits, dots, dashes and underscores, up to 63")
    if delivery.every_s < 1:
        raise UsageError(f"{where}: every_s is {delivery.every_s:g}", hint="write seconds, at least 1")
    if delivery.jitter > 1:
        raise UsageError(f"{where}: jitter is {delivery.jitter:g}", hint="write a share of every_s, from 0 to 1")
    with errors_name(where):
        ModelURI.parse(delivery.uri)
        parse_range(delivery.range)
    if (canary := delivery.canary) and not 0 < canary.share < 1:
        raise UsageError(f"{where} has the canary share {canary.share:g}", hint="write, for example, 0.1 for a tenth")
    if delivery.on_change is not None:
        _check_on_change(delivery.on_change, f"{where}: on_change")


def _check_on_change(change: OnChange, where: str) -> None:
    ways = [key for key in ("load", "touch", "post", "exit") if getattr(change, key)]
    if len(ways) != 1:
        raise UsageError(f"{where} needs one of load, touch, post and exit", hint=f"write {_EXAMPLES['on_change']}")
    for url in filter(None, (change.load, change.post)):
        if urlsplit(url).scheme not in ("http", "https"):
            raise UsageError(f"{where} has the URL {printable(url)!r}", hint="it begins with http:// or https://")
    if change.load and not _MODEL.fullmatch(change.model):
        raise UsageError(f"{where}: load needs model, its name at the server", hint=f"write {_EXAMPLES['on_change']}")
    if change.token_file and not (change.load or change.post):
        raise UsageError(f"{where} has a token_file, and no load or post that it is for", hint="leave it out")
    if change.exit > 125:
        raise UsageError(f"{where}: exit is {change.exit}", hint="an exit code is a number up to 125")
