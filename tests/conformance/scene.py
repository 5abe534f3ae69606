"""What a source's scenes are made of, and where they are found: every module of ``scenes/`` is one source's.

A module has a table for each suite that its source takes part in, from a scene's name to a context manager:

``FAULTS``       (server) -> Scene: the same faults, the same errors (``test_same_faults``, ``test_every_source``)
``TREES``        (request) -> URI, settings: the same tree, the same manifest (``test_same_tree``)
``PAGES``        (server) -> Listed: listings that break off (``test_listings``)
``STRAY_KEYS``   (server, folder, stray) -> URI, settings, how the origin names the stray (``test_stray_names``)
``STRAY_NAMES``  the same, where a name is one segment of a path
``EMPTY``        (server) -> URIs with nothing to deliver, settings (``test_hints``)

A new source adds a module, and no suite is changed for it.
"""

import importlib
import json
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from fakes.faulty_http import ALWAYS, ANYWHERE, Answer, Fault, FaultyServer, Request, status
from fakes.trees import MIB, content
from lading.settings.limits import Limits

BIG = content(MIB, seed=1)
NEW = content(MIB, seed=2)
FILES = {"config.json": b"{}", "weights/big.bin": BIG}
SHORT = Limits(stall_s=0.3, connect_s=5.0, attempts=4, workers=1)
# The model of PAGES, of STRAY_KEYS and STRAY_NAMES, and what is beside the model of EMPTY.
PARTS = {f"part-{number}": b"part" for number in range(3)}
MODEL = {"config.json": b"{}", "onnx/model.onnx": b"onnx"}
BESIDE = "model-v2"


def scenes(table: str) -> dict[str, Callable[..., Any]]:
    """The scenes of every source that has the table."""
    names = sorted(path.stem for path in Path(__file__).with_name("scenes").glob("*.py"))
    sources = [importlib.import_module(f"conformance.scenes.{name}") for name in names]
    return {name: scene for source in sources for name, scene in getattr(source, table, {}).items()}


@dataclass
class Scene:
    """A model at its origin, and how to reach it there.

    The server has the source's fake on it; ``lists`` and ``reads`` say which requests ask what there is, and which
    fetch the content of ``BIG``.  ``files`` is the model, ``put(content)`` gives its large file another content.
    ``secret`` is a text in the requests to the origin that no other host may see, "" if none goes out.  ``declares``
    says that the origin vouches for the large file.
    """

    server: FaultyServer
    uri: str
    lists: Callable[[Request], bool]
    reads: Callable[[Request], bool]
    put: Callable[[bytes], object]
    files: dict[str, bytes] = field(default_factory=lambda: dict(FILES))
    settings: dict[str, object] = field(default_factory=dict)
    secret: str = ""
    declares: bool = True
    limits: Limits = SHORT

    def misbehave(self, fault: Fault) -> None:
        self.server.misbehave(ANYWHERE, fault)

    def new_files(self) -> dict[str, bytes]:
        """The model after its large file was replaced by ``NEW``."""
        return {path: NEW if data is BIG else data for path, data in self.files.items()}


@dataclass
class Listed:
    """A model of PARTS in pages of one file, which ``lists`` says what requests ask for, and ``page`` answers."""

    uri: str
    settings: dict
    lists: Callable[[Request], bool]
    page: Callable[[Request], Answer]
    path: str


def says(document, **when) -> Fault:
    return status(200, json.dumps(document).encode(), times=ALWAYS, **when)
