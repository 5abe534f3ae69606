"""Put together the image's file system: what lading can import, the libraries that needs, and nothing else.

    assemble.py SITE IMAGE

``SITE`` holds lading and its dependencies as pip installed them.  The modules are those that an
import from any module of lading leads to (closure.py); the shared libraries are those that the
interpreter and these modules load.  Only byte code is kept, and no symbol that nothing links to.

    /usr/bin/lading                      runs lading.cli.main in an isolated interpreter
    /usr/bin/python3.13                  Debian's
    /usr/lib/python3.13/                 of its library, what is needed
    /usr/lib/python3/dist-packages/      lading and its dependencies
    /usr/share/sbom/lading.cdx.json      what all this is
    /usr/share/doc/PACKAGE/copyright     the licences of what is Debian's
    /var/lib/dpkg/status.d/PACKAGE       its names and versions, where scanners look for them
    /etc/ssl/certs/ca-certificates.crt   Mozilla's authorities, as Debian has them
    /usr/share/zoneinfo/                 time zones by their names, for windows of rollouts
    /mnt/models, /tmp                    for mounts

Runs on Debian, with the Python that the image gets.  Needs nothing but the standard library and strip.
"""

import json
import os
import py_compile
import re
import shutil
import subprocess
import sys
import sysconfig
from collections.abc import Iterable, Iterator
from pathlib import Path

import closure
import sbom

PYTHON = Path(os.path.realpath(sys.executable))
STDLIB = Path(sysconfig.get_path("stdlib"))
LIBRARY = (STDLIB, STDLIB / "lib-dynload")
DIST_PACKAGES = Path("/usr/lib/python3/dist-packages")
AUTHORITIES = Path("/usr/share/ca-certificates/mozilla")
ZONES = Path("/usr/share/zoneinfo")
LAUNCHER = """#!/usr/bin/python3 -I
import sys

from lading.cli.main import main

sys.exit(main())
"""
CONFIGURATION = {
    "/etc/passwd": "root:x:0:0:root:/:/nologin\nlading:x:1000:1000::/:/nologin\n",
    "/etc/group": "root:x:0:\nlading:x:1000:\n",
    # Without it a name server that does not know a name would hide /etc/hosts, where a pod's hostAliases are.
    "/etc/nsswitch.conf": "passwd: files\ngroup: files\nhosts: files dns\n",
}


class Image:
    """The file system that is being made below ``root``; ``sources`` are the files of this machine that are in it."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.sources: set[Path] = set()
        root.mkdir()

    def at(self, place: Path | str) -> Path:
        """Where ``place`` of the image is on this machine; its folder is there."""
        path = self.root / str(place).lstrip("/")
        path.parent.mkdir(parents=True, exist_ok=True)
        return path

    def write(self, place: Path | str, text: str) -> Path:
        self.at(place).write_text(text, encoding="utf-8")
        return self.at(place)

    def copy(self, source: Path, place: Path | str | None = None) -> Path:
        """Copy a file to its own place, or to another."""
        self.sources.add(source)
        return Path(shutil.copy2(source, self.at(place or source)))

    def add_program(self, source: Path, place: Path | None = None) -> None:
        """Copy a program or library, without what only debuggers and linkers read."""
        subprocess.run(["strip", "--strip-unneeded", str(self.copy(source, place))], check=True)

    def add_module(self, source: Path, place: Path) -> None:
        """Compile a module, or copy it if it is a library."""
        if source.suffix == ".so":
            self.add_program(source, place)
            return
        self.sources.add(source)
        py_compile.compile(
            str(source),
            cfile=str(self.at(place.with_suffix(".pyc"))),
            dfile=str(place),
            doraise=True,
            # The same byte code whenever it is made.
            invalidation_mode=py_compile.PycInvalidationMode.UNCHECKED_HASH,
        )


def add_python(image: Image, site: Path) -> None:
    """The interpreter, every module that lading may import, and the libraries that these load."""
    for folder in {folder for path in site.rglob("*.py") for folder in path.relative_to(site).parents[:-1]}:
        # ModuleFinder knows no packages without this file.
        (site / folder / "__init__.py").touch()
    found = set(closure.modules(site, LIBRARY).values())
    for path in sorted(found):
        image.add_module(path, DIST_PACKAGES / path.relative_to(site) if path.is_relative_to(site) else path)
    for path in metadata(site, found):
        image.copy(path, DIST_PACKAGES / path.relative_to(site))
    bundled = [path for path in site.glob("*.libs/*") if path.is_file()]
    for path in bundled:
        image.add_program(path, DIST_PACKAGES / path.relative_to(site))
    image.add_program(PYTHON)
    for path in shared_libraries([PYTHON, *bundled, *(path for path in found if path.suffix == ".so")]):
        if not path.is_relative_to(site):
            image.add_program(path)
    image.at("/usr/bin/python3").symlink_to(PYTHON.name)
    image.write("/usr/bin/lading", LAUNCHER).chmod(0o755)


def metadata(site: Path, found: set[Path]) -> Iterator[Path]:
    """Names, versions and licences of the distributions that have one of these modules."""
    packages = {path.relative_to(site).parts[0].split(".")[0] for path in found if path.is_relative_to(site)}
    for folder in site.glob("*.dist-info"):
        record = (folder / "RECORD").read_text().splitlines()
        if any(line.split("/")[0].split(".")[0] in packages for line in record):
            yield folder / "METADATA"
            yield from (
                path
                for path in folder.rglob("*")
                if path.is_file() and path.name.upper().startswith(("LICEN", "COPYING", "NOTICE"))
            )


def shared_libraries(files: Iterable[Path]) -> set[Path]:
    """Every library that these programs and extension modules load, by the dynamic linker's own word."""
    found: set[Path] = set()
    for file in files:
        told = subprocess.run(["ldd", str(file)], capture_output=True, text=True, check=False).stdout
        found |= {Path(match) for match in re.findall(r"(?:=> )?(/\S+) \(0x", told)}
    return found


def add_system(image: Image) -> None:
    """What is no program: names, authorities, and folders to write to."""
    for place, text in CONFIGURATION.items():
        image.write(place, text)
    # Not the machine's own bundle: whatever a build had to trust must not be trusted by those who run the image.
    authorities = sorted(AUTHORITIES.glob("*.crt"))
    image.sources.update(authorities)
    image.write("/etc/ssl/certs/ca-certificates.crt", "".join(path.read_text() for path in authorities))
    # Where OpenSSL looks if it is told nothing.
    image.at("/usr/lib/ssl/cert.pem").symlink_to("/etc/ssl/certs/ca-certificates.crt")
    for path in zones():
        image.copy(path)
    for place in ("/mnt/models", "/tmp"):
        image.at(place).mkdir()
        image.at(place).chmod(0o1777)
    image.at("/mnt").chmod(0o1777)


def zones() -> list[Path]:
    """The files of all time zones (RFC 9636); other files beside them list and describe them."""
    found = [path for path in sorted(ZONES.rglob("*")) if path.is_file() and path.read_bytes().startswith(b"TZif")]
    if not found:
        raise SystemExit(f"there are no time zones in {ZONES}: install tzdata")
    return found


def add_papers(image: Image, site: Path) -> None:
    """The bill of materials, and of Debian's packages the licences, and what scanners for vulnerabilities look for."""
    image.copy(Path("/etc/os-release").resolve(), "/etc/os-release")
    packages = sbom.packages(image.sources)
    for package in packages:
        paper = Path("/usr/share/doc") / package.name / "copyright"
        image.copy(paper.resolve(), paper)
        image.write(f"/var/lib/dpkg/status.d/{package.name}", package.about)
    bill = sbom.bill_of_materials(site, packages)
    image.write("/usr/share/sbom/lading.cdx.json", json.dumps(bill, indent=1, sort_keys=True) + "\n")


def main() -> int:
    """Assemble the image; the second argument must not exist yet."""
    site, image = Path(sys.argv[1]), Image(Path(sys.argv[2]))
    add_python(image, site)
    add_system(image)
    add_papers(image, site)
    moment = int(os.environ.get("SOURCE_DATE_EPOCH", "0"))
    for path in sorted(image.root.rglob("*"), reverse=True):
        os.utime(path, (moment, moment), follow_symlinks=False)
    if strays := closure.strays(image.at(DIST_PACKAGES), [image.at(folder) for folder in LIBRARY]):
        print(f"in the image, but nothing imports: {', '.join(map(str, strays))}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
