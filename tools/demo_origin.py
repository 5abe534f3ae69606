"""Where the models of demo.py come from: a copy of the examples, and a server on loopback.

./catalog.yaml              iris: v1 (champion) in ./iris/v1, v2 (challenger) on the server
./lading.yaml               empty: the machine's own configuration has no part in this
./iris/v1/…                 as in the examples
./origin/iris-v2.tar.gz     what the server serves
"""

import functools
import hashlib
import http.server
import shutil
import socketserver
import tarfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import yaml

ARCHIVE = "iris-v2.tar.gz"


@contextmanager
def open_origin(examples: Path, folder: Path) -> Iterator[str]:
    """Lay out ``folder`` as above and serve; gives the archive's URL."""
    shutil.copytree(examples / "iris", folder / "iris")
    archive = folder / "origin" / ARCHIVE
    archive.parent.mkdir()
    with tarfile.open(archive, "w:gz") as packed:
        packed.add(folder / "iris/v2", arcname="")
    with _serve(archive.parent) as address:
        catalog = yaml.safe_load((examples / "catalog.yaml").read_text(encoding="utf-8"))
        challenger = catalog["models"]["iris"]["versions"]["v2"]
        del challenger["digests"]
        challenger["uri"] = f"{address}/{ARCHIVE}"
        challenger["digest"] = f"sha256:{hashlib.sha256(archive.read_bytes()).hexdigest()}"
        (folder / "catalog.yaml").write_text(yaml.safe_dump(catalog, sort_keys=False), encoding="utf-8")
        (folder / "lading.yaml").touch()
        yield challenger["uri"]


def flip_a_byte(folder: Path) -> None:
    """Damage the archive that the server serves, without a trace in its size."""
    archive = folder / "origin" / ARCHIVE
    content = bytearray(archive.read_bytes())
    content[len(content) // 2] ^= 0xFF
    archive.write_bytes(content)


class _Server(http.server.ThreadingHTTPServer):
    def server_bind(self) -> None:
        # Without the look-up of this machine's name, which may ask the network.
        socketserver.TCPServer.server_bind(self)


class _Files(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *_: object) -> None:
        """The story is told elsewhere."""


@contextmanager
def _serve(folder: Path) -> Iterator[str]:
    """The standard library's HTTP server on a free port of loopback; gives its address."""
    with _Server(("127.0.0.1", 0), functools.partial(_Files, directory=str(folder))) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.02,), name="demo-origin", daemon=True)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_address[1]}"
        finally:
            server.shutdown()
            thread.join()
