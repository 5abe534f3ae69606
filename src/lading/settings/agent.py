"""What the agent keeps current, and how it says so: ``deliveries`` and ``agent`` of the configuration file.

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
from collections.abc import Mapping
from itertools import combinations
from types import MappingProxyType
from typing import Any, NamedTuple, TypeVar, cast
from urllib.parse import urlsplit

from lading.errors import UsageError
from lading.settings import Settings, VerifyMode, parse_verify
from lading.uri import printable

PORT = 9090
LAYOUTS = ("link", "numbered", "folder")
_NAME = re.compile(r"[A-Za-z0-9]([A-Za-z0-9._-]{0,61}[A-Za-z0-9])?")
_MODEL = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,254}")

T = TypeVar("T", bound=tuple[Any, ...])


class Canary(NamedTuple):
    """A ``share`` of the hosts (0 to 1) takes a new version at once, the others ``hold_s`` seconds later."""

    share: float = 0.1
    hold_s: float = 3600.0


class OnChange(NamedTuple):
    """How the model server hears of a new version: one of four ways.

    ``load`` is the URL of a server with the Open Inference Protocol's repository extension, ``touch`` a file
    to write, ``post`` a URL to call, ``exit`` the code with which the agent ends.  The others belong to
    ``load``: ``model`` is its name there, ``ready_s`` the time it may take, ``probe`` the body of an
    inference request that must succeed.  ``token_file`` holds a bearer token for ``load`` and ``post``.
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

    ``layout`` is how versions stand at the destination (docs/agent.md); ``keep`` old ones stay beside the
    present one.  It is asked for every ``every_s`` seconds, more or less by the share ``jitter``.  ``range``
    chooses among a registry's versions (semver.org), ``hold_s`` is how old news must be.
    """

    name: str
    uri: str
    destination: str = ""
    layout: str = "link"
    every_s: float = 60.0
    jitter: float = 0.1
    verify: str = ""
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
            verify=cast(VerifyMode, self.verify) if self.verify else settings.verify,
            allow=self.allow or settings.allow,
            ignore=self.ignore or settings.ignore,
        )


class AgentSettings(NamedTuple):
    """What is kept current, and where that is said.

    ``parallel`` deliveries have their turns at a time.  ``port`` 0 is any free one.  With ``token_file``, all but the health endpoints want its text as a bearer
    token; ``certificate`` and ``key`` are files of PEM text; ``mlflow_secret_file`` holds the secret of
    MLflow's webhooks, without which none is believed.
    """

    deliveries: tuple[Delivery, ...] = ()
    parallel: int = 2
    listen: str = "127.0.0.1"
    port: int = PORT
    token_file: str = ""
    certificate: str = ""
    key: str = ""
    mlflow_secret_file: str = ""


def read_agent(settings: Settings) -> AgentSettings:
    """The agent's part of the configuration; ``UsageError`` for anything in it that is not understood."""
    own = _read(AgentSettings, dict(settings.agent), "agent", without=("deliveries",))
    if not 0 <= own.port < 65536:
        raise UsageError(f"agent.port is {own.port}", hint="a port is a number up to 65535")
    if own.parallel < 1:
        raise UsageError("agent.parallel is 0", hint="one delivery at a time is the least")
    if bool(own.certificate) != bool(own.key):
        raise UsageError("agent has a certificate without a key, or a key without a certificate")
    has_store = bool(settings.store.path)
    deliveries = tuple(_delivery(item, index, has_store=has_store) for index, item in enumerate(settings.deliveries))
    for first, second in combinations(deliveries, 2):
        if first.name == second.name:
            raise UsageError(f"two deliveries are called {printable(first.name)}")
        if share_a_place(first, second):
            raise UsageError(
                f"the destinations of {printable(first.name)} and {printable(second.name)} lie within each other",
                hint="each needs a folder of its own",
            )
    return own._replace(deliveries=deliveries)


def share_a_place(first: Delivery, second: Delivery) -> bool:
    """Whether the destination of one lies within that of the other."""
    places = first.destination, second.destination
    return all(places) and os.path.commonpath(places) in places


def _delivery(item: Mapping[str, Any], index: int, *, has_store: bool) -> Delivery:
    item = dict(item)
    shown = f"delivery {printable(str(item.get('name', index + 1)))}"
    if missing := [key for key in ("name", "uri") if not item.get(key)]:
        raise UsageError(f"{shown} has no {missing[0]}", hint="each needs a name and a uri, and mostly a destination")
    if "destination" not in item:
        _check_kept(item, shown, has_store=has_store)
    if "verify" in item:
        # YAML reads "off" as false.
        item["verify"] = parse_verify("off" if item["verify"] is False else str(item["verify"]))
    canary = _read(Canary, _mapping(item.pop("canary", {}), shown), f"{shown}: canary") if "canary" in item else None
    told = _on_change(_mapping(item.pop("on_change", {}), shown), shown) if "on_change" in item else None
    delivery = _read(Delivery, item, shown, without=("canary", "on_change"))
    if "destination" in item:
        delivery = delivery._replace(destination=_destination(delivery, shown))
    _check(delivery, canary, shown)
    return delivery._replace(canary=canary, on_change=told)


def _check_kept(item: Mapping[str, Any], shown: str, *, has_store: bool) -> None:
    if not has_store:
        raise UsageError(
            f"{shown} has no destination, and there is no store that could keep it",
            hint="give it a destination, or the configuration a store.path",
        )
    if of_a_place := [key for key in ("layout", "keep", "on_change") if key in item]:
        raise UsageError(
            f"{shown} has no destination, and can have no {of_a_place[0]}",
            hint="it is kept in the store alone: leave that out, or give it a destination",
        )


def _destination(delivery: Delivery, shown: str) -> str:
    place = os.path.normpath(delivery.destination)
    if not place.startswith("/") or place == "/":
        raise UsageError(f"{shown} has the destination {printable(delivery.destination)!r}", hint="write it from / on")
    return place


def _check(delivery: Delivery, canary: Canary | None, shown: str) -> None:
    if not _NAME.fullmatch(delivery.name):
        raise UsageError(f"{shown} needs another name", hint="letters, digits, dots, dashes and underscores, up to 63")
    if delivery.layout not in LAYOUTS:
        raise UsageError(f"{shown} has the layout {delivery.layout!r}", hint=f"use one of {', '.join(LAYOUTS)}")
    if delivery.every_s < 1 or delivery.jitter > 1:
        raise UsageError(f"{shown} has an every_s below 1, or a jitter above 1")
    if canary is not None and not 0 < canary.share < 1:
        raise UsageError(f"{shown} has the canary share {canary.share:g}", hint="write, for example, 0.1 for a tenth")


def _on_change(item: dict[str, Any], shown: str) -> OnChange:
    told = _read(OnChange, item, f"{shown}: on_change")
    ways = [key for key in ("load", "touch", "post", "exit") if getattr(told, key)]
    if len(ways) != 1:
        raise UsageError(f"{shown}: on_change needs one of load, touch, post and exit")
    for url in filter(None, (told.load, told.post)):
        if urlsplit(url).scheme not in ("http", "https"):
            raise UsageError(f"{shown}: on_change has the URL {printable(url)!r}", hint="it begins with http://")
    if told.load and not _MODEL.fullmatch(told.model):
        raise UsageError(f"{shown}: on_change.load needs model, its name at the server")
    if told.token_file and not (told.load or told.post):
        raise UsageError(f"{shown}: on_change has a token_file, and no load or post that it is for")
    if not 0 <= told.exit < 126:
        raise UsageError(f"{shown}: on_change.exit is {told.exit}", hint="an exit code is a number up to 125")
    return told


def _read(kind: type[T], item: dict[str, Any], shown: str, without: tuple[str, ...] = ()) -> T:
    """The values of ``item`` as a ``kind``, each of the type that its default has."""
    defaults: dict[str, Any] = kind._field_defaults  # type: ignore[attr-defined]  # every T is a NamedTuple
    known: tuple[str, ...] = kind._fields  # type: ignore[attr-defined]
    for key, value in item.items():
        if key not in known or key in without:
            raise UsageError(f"{shown} has the unknown key {printable(str(key))!r}", hint=f"known: {', '.join(known)}")
        default = defaults.get(key, "")
        if isinstance(default, tuple) and isinstance(value, list) and all(isinstance(text, str) for text in value):
            item[key] = tuple(value)
        elif not _fits(value, default):
            raise UsageError(f"{shown}: {key} is {printable(repr(value))}", hint=f"it is for example {default!r}")
    return kind(**item)


def _fits(value: object, default: object) -> bool:
    if isinstance(default, int | float):
        number = isinstance(value, int if isinstance(default, int) else int | float) and not isinstance(value, bool)
        return number and 0 <= cast(float, value) < float("inf")
    if isinstance(default, Mapping):
        return isinstance(value, dict)
    return isinstance(default, str) and isinstance(value, str)


def _mapping(value: object, shown: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise UsageError(f"{shown}: canary and on_change are mappings")
    return dict(value)
