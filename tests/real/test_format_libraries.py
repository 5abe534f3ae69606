"""The formats' own libraries: lading takes what they write for whole, and what it takes for whole, they open."""

import json
import re
import subprocess
from pathlib import Path
from random import Random

import pytest

from lading.formats.inspector import Inspector
from real.conftest import SERVERS

LIBRARIES = (SERVERS / "formats/bin/python", Path(__file__).with_name("format_libraries.py"))
VARIANTS = 60
# A type of tensor that this version of a library does not know is no fault of the file: a later one may.
UNKNOWN_TYPE = re.compile("is not a valid GGMLQuantizationType|unknown variant")


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    folder = tmp_path_factory.mktemp("written")
    subprocess.run([*LIBRARIES, "write", folder], check=True, timeout=120)
    return folder


def inspected(path: Path):
    with path.open("rb") as file:
        return Inspector().inspect(path.name, file, path.stat().st_size)


def test_what_the_libraries_write_is_whole(written):
    findings = {path.name: inspected(path) for path in written.iterdir()}
    assert len(findings) == 13
    assert {name: finding.fault for name, finding in findings.items() if finding.fault} == {}
    assert [name for name, finding in findings.items() if finding.code] == ["objects.npy"]


def test_what_is_whole_opens_in_the_libraries(written, tmp_path):
    random = Random(16)
    # Of ONNX, only the outermost fields are looked at.
    sources = [path for path in sorted(written.iterdir()) if path.suffix != ".onnx"]
    variants = [path for source in sources for path in changed(source, tmp_path, random)]
    asked = "\n".join(map(str, variants))
    found = subprocess.run([*LIBRARIES, "open"], input=asked, capture_output=True, text=True, check=True, timeout=300)
    refusals = dict(zip(variants, json.loads(found.stdout), strict=True))
    whole = [path for path in variants if inspected(path)[1:] == ("", "")]
    refused = {path.name: refusals[path] for path in whole if refusals[path]}
    assert {name: text for name, text in refused.items() if not UNKNOWN_TYPE.search(text)} == {}
    assert len(refused) < len(whole) < len(variants) / 2


def changed(source: Path, folder: Path, random: Random):
    """Copies of a file with a byte of its beginning changed, or cut."""
    content = source.read_bytes()
    for number in range(VARIANTS):
        data = bytearray(content)
        if number % 4:
            data[random.randrange(min(len(data), 300))] = random.randrange(256)
        else:
            del data[random.randrange(len(data)) :]
        path = folder / f"{source.stem}-{number}{source.suffix}"
        path.write_bytes(data)
        yield path
