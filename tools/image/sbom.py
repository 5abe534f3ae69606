"""The image's bill of materials, as CycloneDX 1.6 (https://cyclonedx.org/docs/1.6/json/)."""

import subprocess
from email.parser import Parser
from pathlib import Path
from typing import Any


def bill_of_materials(site: Path, image: Path) -> dict[str, Any]:
    """Every Python distribution below ``site``, and every Debian package that a file of ``image`` is from."""
    components = sorted([*_distributions(site), *_packages(image)], key=lambda each: each["purl"])
    return {
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "version": 1,
        "metadata": {
            "component": next(each for each in components if each["name"] == "lading") | {"type": "application"}
        },
        "components": [each for each in components if each["name"] != "lading"],
    }


def _distributions(site: Path) -> list[dict[str, Any]]:
    found = []
    for file in site.glob("*.dist-info/METADATA"):
        about = Parser().parsestr(file.read_text(encoding="utf-8"), headersonly=True)
        name, version = about["Name"], about["Version"]
        licence = about["License-Expression"] or about["License"] or ""
        found.append(_component(name, version, f"pkg:pypi/{name.lower().replace('_', '-')}@{version}", licence))
    return found


def _packages(image: Path) -> list[dict[str, Any]]:
    names = set()
    for path in image.rglob("*"):
        place = Path("/") / path.relative_to(image)
        if path.is_file() and not str(place).startswith("/usr/lib/python3/dist-packages"):
            # Debian's merged /usr: its database has the older names too.
            for known in (str(place), str(place).removeprefix("/usr")):
                told = subprocess.run(["dpkg-query", "-S", known], capture_output=True, text=True, check=False).stdout
                names |= {line.partition(": ")[0].partition(":")[0] for line in told.splitlines()}
    query = ["dpkg-query", "-W", "-f", "${Package}\t${Version}\t${Architecture}\n", *sorted(names)]
    told = subprocess.run(query, capture_output=True, text=True, check=True).stdout
    found = []
    for line in told.splitlines():
        name, version, architecture = line.split("\t")
        found.append(_component(name, version, f"pkg:deb/debian/{name}@{version}?arch={architecture}", ""))
    return found


def _component(name: str, version: str, purl: str, licence: str) -> dict[str, Any]:
    known = {"licenses": [{"license": {"name": licence.splitlines()[0]}}]} if licence else {}
    return {"type": "library", "name": name, "version": version, "purl": purl, "bom-ref": purl, **known}
