"""The command as its users run it: a process of its own, with an environment that holds nothing else."""

import functools
import hashlib
import http.server
import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

EXAMPLES = Path(__file__).resolve().parent.parent / "examples"
CATALOG = str(EXAMPLES / "catalog.yaml")
LADING = (sys.executable, "-m", "lading")
# What "make coverage" tells the processes that it measures.
MEASURED = {name: text for name, text in os.environ.items() if name.startswith("COVERAGE_")}
# One attempt, so that an origin that is down is reported at once.
ENVIRONMENT = {"AWS_EC2_METADATA_DISABLED": "true", "S3_MAX_ATTEMPTS": "1"}


class Outcome(NamedTuple):
    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)

    @property
    def logs(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.err.splitlines()]


def lading(*argv: str | os.PathLike[str], environ: dict[str, str] | None = None, **options: Any) -> Outcome:
    """Run one command to its end."""
    done = subprocess.run(
        [*LADING, *map(os.fspath, argv)],
        env={**ENVIRONMENT, **MEASURED, **(environ or {})},
        capture_output=True,
        timeout=60,
        check=False,
        **options,
    )
    return Outcome(done.returncode, done.stdout.decode(), done.stderr.decode())


def write_model(folder: Path, **files: bytes) -> Path:
    """A small model: ``config.json``, ``weights/part-1.bin`` and an empty file, or what is given."""
    content = files or {"config.json": b'{"a": 1}', "weights/part-1.bin": b"\x00\x01" * 500, "weights/empty": b""}
    for path, data in content.items():
        place = folder / path
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_bytes(data)
    return folder


def contents(folder: Path) -> dict[str, bytes]:
    """Every file below ``folder`` but lading's own, by its path."""
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file() and not path.relative_to(folder).parts[0].startswith(".lading")
    }


def sha256(data: bytes) -> str:
    return f"sha256:{hashlib.sha256(data).hexdigest()}"


class QuietServer(http.server.ThreadingHTTPServer):
    """Says nothing of clients that go away: to break off is what several tests have them do."""

    def handle_error(self, *_: object) -> None:
        pass


class _Files(http.server.SimpleHTTPRequestHandler):
    """The folder's files; below /status/ the status that the path names."""

    def do_GET(self) -> None:
        if self.path.startswith("/status/"):
            self.send_error(int(self.path.partition("?")[0].split("/")[2]))
        else:
            super().do_GET()

    def log_message(self, *_: object) -> None:
        pass


@contextmanager
def serve(folder: Path, handler: type[http.server.SimpleHTTPRequestHandler] = _Files) -> Iterator[str]:
    """Serve ``folder`` on loopback; gives the address."""
    with QuietServer(("127.0.0.1", 0), functools.partial(handler, directory=str(folder))) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.02,), name="origin")
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_address[1]}"
        finally:
            server.shutdown()
            thread.join()


class Slow:
    """An origin of 8 MiB that stops half-way: ``begun`` is set then, and ``go_on`` lets it finish."""

    SIZE = 8 << 20

    def __init__(self) -> None:
        self.begun = threading.Event()
        self.go_on = threading.Event()

    def handler(self) -> type[http.server.SimpleHTTPRequestHandler]:
        slow = self

        class Handler(_Files):
            def do_GET(self) -> None:
                self.send_response(200)
                self.send_header("Content-Length", str(slow.SIZE))
                self.end_headers()
                if self.headers["Range"]:
                    # The look at the head: what comes after it is not wanted.
                    self.close_connection = True
                    return
                self.wfile.write(bytes(slow.SIZE // 2))
                slow.begun.set()
                slow.go_on.wait(30)
                self.wfile.write(bytes(slow.SIZE // 2))

        return Handler
