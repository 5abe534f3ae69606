"""The image, built from the sources as they are."""

import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
SOURCES = (
    "Containerfile",
    ".dockerignore",
    "LICENSE",
    "README.md",
    "native",
    "pyproject.toml",
    "requirements",
    "src",
    "tools",
)
# An environment that lets a container without a daemon start where limits cannot be raised and cgroups are hybrid.
ENGINE = ("--runtime", "runc", "--ulimit", "nofile=4096", "--ulimit", "nproc=4096")


def podman(*arguments: str | Path, **options: Any) -> subprocess.CompletedProcess[str]:
    return subprocess.run(["podman", *map(str, arguments)], capture_output=True, text=True, **options)


def build(folder: Path, name: str, **options: str) -> str:
    """``make image`` from a copy of the sources, which nobody changes meanwhile."""
    if not folder.exists():
        folder.mkdir()
        for source in SOURCES:
            if (ROOT / source).is_dir():
                shutil.copytree(ROOT / source, folder / source, ignore=shutil.ignore_patterns("target", "Cargo.lock"))
            else:
                shutil.copy(ROOT / source, folder / source)
        (ROOT / ".servers").mkdir(exist_ok=True)
        (folder / ".servers").symlink_to(ROOT / ".servers")
    environ = os.environ | {"ENGINE": "podman", "BASE": "local", "IMAGE": name} | options
    done = subprocess.run([folder / "tools/image/build.sh"], env=environ, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()
