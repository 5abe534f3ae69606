"""``make demo``: the main job on this machine alone, then the same with a damaged byte.

Every command that it shows is run as a user would run it, in a temporary folder; nothing is
staged for the show but the origin.  Ends with 1 when anything goes otherwise.
"""

import contextlib
import io
import os
import shutil
import sys
import tempfile
import time
from pathlib import Path
from typing import NoReturn

from demo_origin import flip_a_byte, open_origin

from lading.cli.main import main as run_lading
from lading.errors import IntegrityError
from lading.model.manifest import Manifest
from lading.model.paths import FILE_NAME, WORKSPACE_NAME
from lading.text.units import count, duration, size

_EXAMPLES = Path(__file__).resolve().parent.parent / "examples"
_CHAMPION = "model-registry://iris@champion"
_CHALLENGER = "model-registry://iris@challenger"
# Of nobody's environment: a proxy or a pattern that is set for real work has no part in this.
_ENVIRONMENT = {"LADING_CATALOG": "catalog.yaml", "LADING_CONFIG": "lading.yaml"}


def main() -> None:
    """Tell the whole story, with the example models or with those of the folder that is given."""
    examples = Path(sys.argv[1]).absolute() if len(sys.argv) > 1 else _EXAMPLES
    shown_as = os.path.relpath(examples)
    started_s = time.monotonic()
    with (
        tempfile.TemporaryDirectory(prefix="lading-demo-") as folder,
        contextlib.chdir(folder),
        open_origin(examples, Path()) as url,
    ):
        _introduce(url)
        _deliver()
        _deliver_over_http()
        _refuse()
    print(
        f"\nAll of it went as told, in {duration(time.monotonic() - started_s)}, and its folder is gone.  Yours to try:\n"
    )
    if shutil.which("lading") is None:
        print(f'  $ export PATH="{Path(sys.executable).parent}:$PATH"')
    print(f"  $ lading pull {_CHAMPION} /tmp/iris --catalog {shown_as}/catalog.yaml")


def _introduce(url: str) -> None:
    print("A model, by its name in a registry, becomes a folder: verified, and whole or not at all.\n")
    print("The registry is a file, catalog.yaml. It says that iris@champion is v1, in the folder iris/v1,")
    print(f"and iris@challenger is v2, at {url}.\n")
    print("  $ export LADING_CATALOG=catalog.yaml")


def _deliver() -> None:
    print("\n1. What is behind the name?\n")
    _lading("resolve", _CHAMPION)
    print("\n2. Bring it to a folder.\n")
    _lading("pull", _CHAMPION, "models/iris")
    _show_tree(Path("models/iris"))
    _show_manifest(Path("models/iris") / FILE_NAME)
    print("\n3. Is it still what was delivered? Every byte is read again.\n")
    _lading("verify", "models/iris")


def _deliver_over_http() -> None:
    print("\n4. The challenger comes over HTTP, as an archive whose sha256 the catalog records.\n")
    _lading("pull", _CHALLENGER, "models/next")
    _show_tree(Path("models/next"))


def _refuse() -> None:
    manifest = Path("models/iris") / FILE_NAME
    before = manifest.read_bytes()
    print("\n5. Now one byte is damaged at the origin, and the challenger is to replace the champion.\n")
    flip_a_byte(Path())
    _lading("pull", _CHALLENGER, "models/iris", expected=IntegrityError.exit_code)
    print(f"\n   That was exit code {IntegrityError.exit_code}: integrity.")
    print("\n6. Refused. The folder that a server reads is untouched: still the champion, bit for bit.\n")
    _lading("verify", "models/iris")
    if manifest.read_bytes() != before or Path("models/iris", WORKSPACE_NAME).exists():
        _not_as_told("the refused delivery left something in models/iris")


def _lading(*argv: str, expected: int = 0) -> None:
    """Run one command, and show it with all that it writes."""
    print(f"  $ lading {' '.join(argv)}")
    output = io.StringIO()
    with contextlib.redirect_stdout(output), contextlib.redirect_stderr(output):
        code = run_lading(argv, _ENVIRONMENT)
    for line in output.getvalue().splitlines():
        print(f"    {line}".rstrip())
    if code != expected:
        _not_as_told(f"exit code {code} where {expected} was expected")


def _show_tree(folder: Path) -> None:
    print(f"\n    {folder}/")
    _show_branch(folder, "    ")


def _show_branch(folder: Path, margin: str) -> None:
    entries = sorted(folder.iterdir())
    for entry in entries:
        twig, below = ("└── ", "    ") if entry is entries[-1] else ("├── ", "│   ")
        if entry.is_dir():
            print(f"{margin}{twig}{entry.name}/")
            _show_branch(entry, margin + below)
        else:
            print(f"{margin}{twig}{entry.name}  ({size(entry.stat().st_size)})")


def _show_manifest(path: Path) -> None:
    manifest = Manifest.loads(path.read_text(encoding="utf-8"))
    verified = [file for file in manifest.files if any(digest.algorithm == "sha256" for digest in file.verified)]
    print(f"\n    {path.name} tells what this is:")
    print(f"      requested  {manifest.requested}")
    print(f"      resolved   {manifest.resolved}, version {manifest.version}")
    print(f"      digest     {manifest.digest}")
    print(f"      verified   {len(verified)} of {count(len(manifest.files), 'file')}, by the catalog's sha256")


def _not_as_told(what: str) -> NoReturn:
    sys.exit(f"the demo did not go as told: {what}\nThis is a defect of lading: please report it.")


if __name__ == "__main__":
    main()
