"""lading as it is measured: out of its image, whose interpreter and OpenSSL are what runs in a cluster."""

import contextlib
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

_VENV = Path(__file__).resolve().parent.parent / ".venv/bin"


@contextlib.contextmanager
def lading(image: str, seen: Path) -> Iterator[Sequence[str]]:
    """The words that start lading, which sees the folder ``seen`` at its own path.

    ``image`` is unpacked and entered by chroot, as root, so that nothing of a container's start is measured;
    "" is the lading of this work tree, on this machine's Python.
    """
    if not image:
        # As the image's is, and the peers': none compiles its modules while it is timed.
        subprocess.run([_VENV / "python", "-m", "compileall", "-q", _VENV.parent.parent / "src"], check=True)
        yield [str(_VENV / "lading")]
        return
    with unpacked(image) as root:
        inside = root / seen.absolute().relative_to("/")
        inside.mkdir(parents=True)
        subprocess.run(["mount", "--rbind", seen, inside], check=True)
        try:
            yield ["chroot", str(root), "/usr/bin/lading"]
        finally:
            subprocess.run(["umount", "--recursive", "--lazy", inside], check=True)


def about(command: Sequence[str]) -> str:
    """The Python that this lading runs on, and what TLS is by."""
    python = [*command[:2], "/usr/bin/python3"] if command[0] == "chroot" else [str(_VENV / "python")]
    asked = ([*python, "-c", "import sys; print('Python', sys.version.split()[0])"], [*command, "--version"])
    return ", ".join(subprocess.run(each, check=True, capture_output=True, text=True).stdout.strip() for each in asked)


@contextlib.contextmanager
def unpacked(image: str) -> Iterator[Path]:
    """The image's file system in a folder."""
    with tempfile.TemporaryDirectory() as name:
        create = ["podman", "create", "--runtime", "runc", image]
        container = subprocess.run(create, capture_output=True, text=True, check=True).stdout.strip()
        subprocess.run(["podman", "export", "--output", f"{name}/image.tar", container], check=True)
        subprocess.run(["podman", "rm", container], check=True, capture_output=True)
        (Path(name) / "root").mkdir()
        subprocess.run(["tar", "-C", f"{name}/root", "-xf", f"{name}/image.tar"], check=True)
        yield Path(name) / "root"
