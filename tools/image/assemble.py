"""Put together the image's file system: what lading can import, the libraries that needs, and nothing else.

    assemble.py SITE IMAGE

``SITE`` holds lading and its dependencies as pip installed them.  The modules are those that an
import from any module of lading leads to, found without running anything, so that a module nobody
imports cannot be there; the shared libraries are those that the interpreter and these modules load.
Runs on Debian, with the Python that the image gets.  Needs nothing but the standard library.
"""

import compileall
import json
import os
import py_compile
import re
import shutil
import subprocess
import sys
import sysconfig
from collections.abc import Iterable, Iterator
from modulefinder import ModuleFinder
from pathlib import Path

import sbom

PYTHON = Path(os.path.realpath(sys.executable))
STDLIB = Path(sysconfig.get_path("stdlib"))
# What is imported by name at run time, where no import statement says so.
BY_NAME = (
    "encodings.ascii",
    "encodings.cp437",  # names in zip archives
    "encodings.idna",
    "encodings.latin_1",
    "encodings.utf_8",
    "encodings.utf_8_sig",
    "site",
    "_sitebuiltins",
    "_strptime",
)
# Imports that are there for other systems, for tests, for people at a prompt, or for what lading never calls.
NOT_HERE = (
    "_pyrepl", "asyncio", "bdb", "cmd", "code", "codeop", "curses", "doctest", "ensurepip", "idlelib", "lib2to3",
    "multiprocessing", "ntpath", "nturl2path", "pdb", "pydoc", "pydoc_data", "readline", "sqlite3", "test", "tkinter",
    "turtle", "unittest", "venv", "webbrowser", "wsgiref", "xmlrpc",
)  # fmt: skip
LAUNCHER = """#!/usr/bin/python3 -I
import sys

from lading.cli.main import main

sys.exit(main())
"""


def modules(site: Path) -> dict[str, Path]:
    """Every module that an import from lading leads to, and its file."""
    for path in list(site.rglob("*.py")):
        for folder in path.relative_to(site).parents[:-1]:
            # ModuleFinder knows no packages without this file.
            (site / folder / "__init__.py").touch()
    finder = ModuleFinder([str(site), *sys.path[1:]], excludes=list(NOT_HERE))
    own = [".".join(path.relative_to(site).with_suffix("").parts) for path in (site / "lading").rglob("*.py")]
    for name in (*own, *BY_NAME):
        finder.import_hook(name.removesuffix(".__init__"))
    files = {name: getattr(module, "__file__", None) for name, module in finder.modules.items()}
    return {name: Path(file) for name, file in files.items() if file}


def data_files(site: Path, found: dict[str, Path]) -> Iterator[Path]:
    """What belongs to the packages beside their modules: extension modules' own libraries, names and licences."""
    packages = {path.relative_to(site).parts[0] for path in found.values() if path.is_relative_to(site)}
    for folder in site.glob("*.dist-info"):
        top = (folder / "RECORD").read_text().splitlines()
        if any(line.split("/")[0].split(".")[0] in packages for line in top):
            yield from (folder / name for name in ("METADATA", "WHEEL") if (folder / name).exists())
            yield from (
                path
                for path in folder.rglob("*")
                if path.is_file() and path.name.upper().startswith(("LICEN", "COPYING", "NOTICE"))
            )
    for libraries in site.glob("*.libs"):
        yield from libraries.iterdir()


def shared_libraries(files: Iterable[Path]) -> set[Path]:
    """Every library that these programs and extension modules load, by the dynamic linker's own word."""
    found: set[Path] = set()
    for file in files:
        told = subprocess.run(["ldd", str(file)], capture_output=True, text=True, check=False).stdout
        found |= {Path(match) for match in re.findall(r"(?:=> )?(/\S+) \(0x", told)}
    return found


def copy(source: Path, image: Path, target: str | None = None) -> None:
    """Copy a file to its own place in the image, or to ``target``."""
    place = image / (target or str(source)).lstrip("/")
    place.parent.mkdir(parents=True, exist_ok=True)
    shutil.copy2(source, place, follow_symlinks=True)


def main() -> int:
    """Assemble the image; the second argument must not exist yet."""
    site, image = Path(sys.argv[1]), Path(sys.argv[2])
    image.mkdir()
    found = modules(site)
    target = "/usr/lib/python3/dist-packages"
    for path in found.values():
        inside = path.is_relative_to(site)
        copy(path, image, f"{target}/{path.relative_to(site)}" if inside else None)
    for path in data_files(site, found):
        copy(path, image, f"{target}/{path.relative_to(site)}")
    copy(PYTHON, image)
    (image / "usr/bin/python3").symlink_to(PYTHON.name)
    launcher = image / "usr/bin/lading"
    launcher.write_text(LAUNCHER)
    launcher.chmod(0o755)
    programs = [PYTHON, *(path for path in found.values() if ".so" in path.name), *site.glob("*.libs/*")]
    libraries = {path for path in shared_libraries(programs) if not path.is_relative_to(site)}
    for path in libraries:
        copy(path, image)
    copy(Path("/etc/ssl/certs/ca-certificates.crt"), image)
    copy(Path("/usr/lib/ssl/openssl.cnf"), image)
    (image / "etc/passwd").write_text("root:x:0:0:root:/:/nologin\nlading:x:1000:1000::/:/nologin\n")
    (image / "etc/group").write_text("root:x:0:\nlading:x:1000:\n")
    (image / "mnt/models").mkdir(parents=True)
    for folder in (image / "mnt", image / "mnt/models"):
        os.chown(folder, 1000, 1000)
        folder.chmod(0o777)
    (image / "tmp").mkdir(mode=0o1777)
    compileall.compile_dir(
        image / "usr/lib",
        quiet=1,
        stripdir=str(image),
        # Byte code that is believed without looking at its source: times do not matter, and nothing is written.
        invalidation_mode=py_compile.PycInvalidationMode.UNCHECKED_HASH,
    )
    bill = image / "usr/share/sbom/lading.cdx.json"
    bill.parent.mkdir(parents=True)
    bill.write_text(json.dumps(sbom.bill_of_materials(site, image), indent=1, sort_keys=True) + "\n")
    moment = int(os.environ.get("SOURCE_DATE_EPOCH", "0"))
    for path in sorted(image.rglob("*"), reverse=True):
        os.utime(path, (moment, moment), follow_symlinks=False)
    return 0


if __name__ == "__main__":
    sys.exit(main())
