"""The image's bill of materials, as CycloneDX 1.6 (https://cyclonedx.org/docs/1.6/json/)."""

import platform
import re
import subprocess
from collections.abc import Iterable
from email.parser import Parser
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import quote

# Where native/crates.txt is when the image is built, as tools/native/crates.py writes it.
CRATES = Path("/build/native/crates.txt")


class Package(NamedTuple):
    """A Debian package: ``about`` is its paragraph in dpkg's database."""

    name: str
    version: str
    architecture: str
    about: str


def packages(files: Iterable[Path]) -> list[Package]:
    """The Debian packages that these files are from."""
    # Debian's merged /usr: its database has some files by their older names.
    names = {name for file in files for name in (str(file), str(file).removeprefix("/usr"), f"/usr{file}")}
    # It fails for names that it does not know, as half of these are.
    told = subprocess.run(["dpkg-query", "--search", *sorted(names)], capture_output=True, text=True, check=False)
    # "diversion by PACKAGE from: FILE" is about a file that another package has put in the place of one.
    lines = [line for line in told.stdout.splitlines() if not line.startswith("diversion by ")]
    owners = sorted({re.split("[:,]", line)[0] for line in lines})
    return [_known(name) for name in owners]


def _known(name: str) -> Package:
    about = subprocess.run(["dpkg-query", "--status", name], capture_output=True, text=True, check=True).stdout
    fields = Parser().parsestr(about, headersonly=True)
    return Package(name, fields["Version"], fields["Architecture"], about)


def bill_of_materials(site: Path, debian: Iterable[Package]) -> dict[str, Any]:
    """Every Python distribution below ``site``, and these Debian packages."""
    components = [_distribution(file) for file in site.glob("*.dist-info/METADATA")]
    components += [_package(package) for package in debian]
    components += [_crate(line) for line in _lines(CRATES)]
    components.sort(key=lambda each: str(each["purl"]))
    own = next(each for each in components if each["name"] == "lading")
    return {
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "version": 1,
        "metadata": {"component": own | {"type": "application"}},
        "components": [each for each in components if each is not own],
    }


def _distribution(metadata: Path) -> dict[str, Any]:
    about = Parser().parsestr(metadata.read_text(encoding="utf-8"), headersonly=True)
    name, version = about["Name"], about["Version"]
    # Names are normal as https://packaging.python.org/en/latest/specifications/name-normalization/ says.
    component = _component(name, version, f"pkg:pypi/{re.sub('[-_.]+', '-', name).lower()}@{version}")
    if about["License-Expression"]:
        return component | {"licenses": [{"expression": about["License-Expression"]}]}
    return component | {"licenses": _named([(about["License"] or "unknown").splitlines()[0]])}


def _lines(file: Path) -> list[str]:
    lines = file.read_text(encoding="utf-8").splitlines() if file.exists() else []
    return [line for line in lines if not line.startswith("#")]


def _crate(line: str) -> dict[str, Any]:
    """What lading-native is built from, by a line of its name, version, SHA-256 and licence."""
    name, version, checksum, licence = line.split(maxsplit=3)
    component = _component(name, version, f"pkg:cargo/{name}@{version}")
    hashes = [{"alg": "SHA-256", "content": checksum}]
    return component | {"hashes": hashes, "licenses": [{"expression": licence}]}


def _package(package: Package) -> dict[str, Any]:
    # https://github.com/package-url/purl-spec/blob/main/types-doc/deb-definition.md
    version = quote(package.version, safe="~")
    release = platform.freedesktop_os_release()["VERSION_ID"]
    purl = f"pkg:deb/debian/{package.name}@{version}?arch={package.architecture}&distro=debian-{release}"
    paper = Path("/usr/share/doc", package.name, "copyright")
    text = paper.read_text(encoding="utf-8")
    # https://www.debian.org/doc/packaging-manuals/copyright-format/1.0/; others are prose.
    formal = text.startswith("Format:")
    names = sorted(set(re.findall(r"^License: *(\S.*?) *$", text, re.MULTILINE))) if formal else [f"see {paper}"]
    return _component(package.name, package.version, purl) | {"licenses": _named(names)}


def _named(names: Iterable[str]) -> list[dict[str, Any]]:
    return [{"license": {"name": name}} for name in names]


def _component(name: str, version: str, purl: str) -> dict[str, Any]:
    return {"type": "library", "name": name, "version": version, "purl": purl, "bom-ref": purl}
