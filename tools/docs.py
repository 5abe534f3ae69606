"""Build the documentation site: a folder for this tree, and one for each version that has a tag.

    OUT/index.html      leads to the newest version, or to this tree as long as there is none
    OUT/development/    this tree, in which a dead reference is an error
    OUT/0.1.0/          the tree of the tag v0.1.0, by its own docs/conf.py

Runs in an environment that has requirements/docs.txt and requirements/runtime.txt.
"""

import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
HERE = "development"
FRONT = '<!doctype html><meta charset="utf-8"><title>lading</title><meta http-equiv="refresh" content="0; url={0}"><a href="{0}">lading</a>\n'


def tagged() -> list[str]:
    """The versions that have a tag, newest first."""
    command = ["git", "-C", str(ROOT), "tag", "--list", "v[0-9]*", "--sort=-version:refname"]
    return [tag[1:] for tag in subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()]


def build(tree: Path, out: Path, versions: Sequence[str], *options: str) -> None:
    """Build the pages of ``tree`` in the folder ``out``, which is named after their version."""
    environ = os.environ | {"DOCS_VERSION": out.name, "DOCS_VERSIONS": " ".join(versions)}
    sphinx = [sys.executable, "-m", "sphinx", "--quiet", "--fresh-env", "--write-all", *options]
    with tempfile.TemporaryDirectory() as cache:
        command = [*sphinx, "--conf-dir", str(tree / "docs"), "--doctree-dir", cache, str(tree), str(out)]
        subprocess.run(command, env=environ, check=True)


def build_tag(version: str, out: Path, versions: Sequence[str]) -> None:
    """Build the pages of a version as its tag has them."""
    with tempfile.TemporaryDirectory() as folder:
        archive = ["git", "-C", str(ROOT), "archive", f"v{version}"]
        tree = subprocess.run(archive, capture_output=True, check=True).stdout
        subprocess.run(["tar", "-x", "-C", folder], input=tree, check=True)
        build(Path(folder), out, versions)


def main() -> int:
    """Build the site in the folder that the first argument names."""
    out = Path(sys.argv[1])
    released = tagged()
    versions = [*released, HERE]
    build(ROOT, out / HERE, versions, "--fail-on-warning", "--keep-going")
    for version in released:
        build_tag(version, out / version, versions)
    (out / "index.html").write_text(FRONT.format(f"{versions[0]}/docs/index.html"), encoding="utf-8")
    print(f"{(out / 'index.html').resolve().as_uri()}: {', '.join(versions)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
