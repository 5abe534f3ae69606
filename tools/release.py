"""Make a version: write it down, then build and try everything that is published.  RELEASE.md tells the steps.

    release.py prepare 1.2.3    write the version wherever it stands, and collect changes/ into CHANGELOG.md
    release.py build 1.2.3      build what the tag v1.2.3 stands for
    release.py build            rehearse that with the last commit, under the version that stands in it

``build`` leaves in build/release:

    lading-1.2.3.tar.gz                 the source distribution
    lading-1.2.3-py3-none-any.whl       the wheel, made from it
    lading-1.2.3.cdx.json               what an install of it brings along
    lading_kserve_storage-1.2.3-py3-none-any.whl
    lading-1.2.3-linux-amd64.tar        the image, an OCI archive; one for each platform
    lading-1.2.3-linux-amd64.cdx.json   what is in it
    lading-1.2.3.intoto.json            what was built from what
    SHA256SUMS

Each of these has been installed, or loaded, where nothing else is, and has delivered a model.  A rehearsal builds the
image for this machine alone, unless PLATFORMS names others.
"""

import json
import os
import platform
import re
import shutil
import subprocess
import sys
import tempfile
import venv
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from filecmp import cmpfiles
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "tools/image"))

import provenance  # noqa: E402
import sbom  # noqa: E402

OUT = ROOT / "build/release"
# Wherever the version stands.
PLACES = {
    "src/lading/__init__.py": re.compile(r'(?<=^__version__ = ")[^"]+', re.MULTILINE),
    "compat/pyproject.toml": re.compile(r'(?<=^version = ")[^"]+', re.MULTILINE),
    "deploy/helm/lading/Chart.yaml": re.compile(r"(?<=^version: )\S+", re.MULTILINE),
}
PLATFORMS = "linux/amd64 linux/arm64"
MODEL = "examples/iris/v1"
# Both hooks of https://peps.python.org/pep-0517/ are called where the project is.
_SDIST = "import sys; from flit_core import buildapi; print(buildapi.build_sdist(sys.argv[1]))"
_WHEEL = "import sys; from flit_core import buildapi; print(buildapi.build_wheel(sys.argv[1]))"
_KSERVE_STORAGE = "import sys; from kserve_storage import Storage; Storage.download(sys.argv[1], sys.argv[2])"


class Refused(Exception):
    """Why there is no release; one line for each reason."""


def run(*command: str | Path, cwd: Path, **environ: str) -> str:
    """What a command prints; what it complains of is shown if it fails."""
    done = subprocess.run(command, cwd=cwd, env=os.environ | environ, capture_output=True, text=True, check=False)
    if done.returncode:
        raise Refused(f"{' '.join(map(str, command))} ended with {done.returncode}\n{done.stdout}{done.stderr}")
    return done.stdout.strip()


def git(tree: Path, *arguments: str) -> str:
    """What git says of the repository ``tree``."""
    return run("git", *arguments, cwd=tree)


# The version, and the places where it stands


def stated(tree: Path) -> dict[str, str]:
    """The version that each place in ``tree`` has."""
    found = {name: place.search((tree / name).read_text(encoding="utf-8")) for name, place in PLACES.items()}
    return {name: match[0] if match else "" for name, match in found.items()}


def fragments(tree: Path) -> list[str]:
    """The names of the changes that no version has yet."""
    return sorted(path.name for path in (tree / "changes").glob("*.md") if path.name != "README.md")


def disagreements(tree: Path, version: str) -> list[str]:
    """Why ``tree`` is not this version."""
    wrong = [f"{name} says {found or 'nothing'}" for name, found in stated(tree).items() if found != version]
    if f"\n## {version} (" not in (tree / "CHANGELOG.md").read_text(encoding="utf-8"):
        wrong.append(f"CHANGELOG.md has no {version}")
    return wrong + [f"changes/{name} is not in the changelog" for name in fragments(tree)]


def prepare(tree: Path, version: str) -> None:
    """Write the version into ``tree``, and collect its changes."""
    if not re.fullmatch(r"\d+\.\d+\.\d+", version):
        raise Refused(f"{version or 'nothing'} is no version: make changelog VERSION=1.2.3")
    if not fragments(tree):
        raise Refused("changes/ is empty: there is nothing to release")
    for name, place in PLACES.items():
        text = (tree / name).read_text(encoding="utf-8")
        (tree / name).write_text(place.sub(version, text, count=1), encoding="utf-8")
    run(Path(sys.executable).with_name("towncrier"), "build", "--yes", "--version", version, cwd=tree)
    print(f"Read CHANGELOG.md, commit, and tag the commit: git tag --sign v{version}")


def check_tag(tree: Path, version: str) -> None:
    """Refuse to build anything but a clean checkout of the tag, on a base that is known."""
    wrong = disagreements(tree, version)
    if git(tree, "status", "--porcelain"):
        wrong.append("there are changes that are not committed")
    if f"v{version}" not in git(tree, "tag", "--points-at", "HEAD").split():
        wrong.append(f"the commit has no tag v{version}")
    if "@sha256:" not in os.environ.get("BASE", ""):
        wrong.append("BASE names no Debian by digest (docker.io/library/debian@sha256:…)")
    if wrong:
        raise Refused("\n".join(wrong))


# What is built


class Tree(NamedTuple):
    """The committed files alone, in a folder of their own."""

    path: Path
    version: str
    commit: str
    epoch: str


@contextmanager
def checkout(repository: Path) -> Iterator[Tree]:
    """The files of the last commit."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "lading"
        path.mkdir()
        archive = subprocess.run(["git", "-C", str(repository), "archive", "HEAD"], capture_output=True, check=True)
        subprocess.run(["tar", "-x", "-C", path], input=archive.stdout, check=True)
        version = stated(path)["src/lading/__init__.py"]
        yield Tree(
            path,
            version,
            git(repository, "rev-parse", "HEAD"),
            git(repository, "show", "--no-patch", "--format=%ct", "HEAD"),
        )


def distributions(tree: Tree) -> tuple[Path, Path, Path]:
    """Build the source distribution, the wheel from what is in it, and compat's wheel."""
    clock = {"SOURCE_DATE_EPOCH": tree.epoch}
    sdist = OUT / run(sys.executable, "-c", _SDIST, OUT, cwd=tree.path, **clock)
    with tempfile.TemporaryDirectory() as folder:
        run("tar", "-x", "-f", sdist, cwd=Path(folder))
        (unpacked,) = Path(folder).iterdir()
        wheel = OUT / run(sys.executable, "-c", _WHEEL, OUT, cwd=unpacked, **clock)
    return sdist, wheel, OUT / run(sys.executable, "-c", _WHEEL, OUT, cwd=tree.path / "compat", **clock)


def image(tree: Tree, target: str) -> Path:
    """Build the image for one platform, and keep it beside its bill of materials."""
    archive = OUT / f"lading-{tree.version}-{target.replace('/', '-')}.tar"
    (ROOT / ".servers").mkdir(exist_ok=True)
    if not (tree.path / ".servers").exists():
        # Debian, where it was bootstrapped once.
        (tree.path / ".servers").symlink_to(ROOT / ".servers")
    name = f"localhost/lading:{tree.version}-{target.split('/')[1]}"
    options = {"IMAGE": name, "ARCHIVE": str(archive)} | ({} if target == native() else {"PLATFORM": target})
    run("tools/image/build.sh", cwd=tree.path, **options)
    shutil.copy(tree.path / "build/lading.cdx.json", archive.with_suffix(".cdx.json"))
    return archive


def native() -> str:
    """The platform of this machine."""
    return "linux/" + {"x86_64": "amd64", "aarch64": "arm64"}[platform.machine()]


# Whether it works where nothing else is


def check_delivery(tree: Tree, call: Callable[..., str], destination: Path) -> None:
    """Deliver a model, compare it byte for byte, and verify it."""
    model = tree.path / MODEL
    check_same(model, call("pull", str(model), str(destination)), destination)
    call("verify", str(destination))


def check_same(model: Path, said: str, delivered: Path) -> None:
    """Refuse a delivery that is not the model."""
    names = [str(path.relative_to(model)) for path in model.rglob("*") if path.is_file()]
    equal, *others = cmpfiles(model, delivered, names, shallow=False)
    if not equal or any(others):
        raise Refused(f"{others} of {MODEL} were not delivered: {said}")


@contextmanager
def installed(tree: Tree, *distributions: Path, tools: Sequence[str] = ()) -> Iterator[Path]:
    """The folder of an environment with the locked requirements, these distributions and nothing else, not even pip."""
    with tempfile.TemporaryDirectory() as folder:
        venv.create(folder)
        pip = [sys.executable, "-m", "pip", "--python", f"{folder}/bin/python", "install", "--quiet"]
        locks = [word for name in ("runtime", *tools) for word in ("-r", str(tree.path / f"requirements/{name}.txt"))]
        run(*pip, "--disable-pip-version-check", "--require-hashes", *locks, cwd=tree.path)
        run(*pip, "--disable-pip-version-check", "--no-deps", "--no-build-isolation", *distributions, cwd=tree.path)
        yield Path(folder)


def check_installed(tree: Tree, environment: Path) -> None:
    """Call ``lading`` as it was installed."""

    def call(*arguments: str) -> str:
        return run(environment / "bin/lading", *arguments, cwd=environment)

    if call("--version").split()[:2] != ["lading", tree.version]:
        raise Refused(f"lading --version says {call('--version')}, not {tree.version}")
    check_delivery(tree, call, environment / "delivered")


def check_distributions(tree: Tree, sdist: Path, wheel: Path, compat: Path) -> Path:
    """Try all three; return the bill of materials of the wheel's environment."""
    with installed(tree, sdist, tools=["build"]) as environment:
        check_installed(tree, environment)
    with installed(tree, wheel, compat) as environment:
        check_installed(tree, environment)
        by_kserve = environment / "by-kserve"
        run(environment / "bin/python", "-c", _KSERVE_STORAGE, tree.path / MODEL, by_kserve, cwd=environment)
        check_same(tree.path / MODEL, "by kserve_storage", by_kserve)
        (site,) = environment.glob("lib/python*/site-packages")
        bill = OUT / f"lading-{tree.version}.cdx.json"
        bill.write_text(json.dumps(sbom.bill_of_materials(site, ()), indent=1, sort_keys=True) + "\n", encoding="utf-8")
    return bill


def check_image(tree: Tree, archive: Path) -> None:
    """Load the archive, and deliver in a container without a network, as any user, with a read-only root."""
    engine = next((name for name in ("podman", "docker") if shutil.which(name)), "")
    if not engine:
        raise Refused("neither podman nor docker is here to try the image with")
    name = run(engine, "load", "--quiet", "--input", archive, cwd=OUT).split(": ", 1)[1]
    limits = ["--ulimit", "nofile=4096", "--ulimit", "nproc=4096"]
    confined = ["--network", "none", "--read-only", "--cap-drop", "all", "--user", "1000730000:0"]
    if engine == "podman" and (runc := shutil.which("runc", path=f"{os.environ['PATH']}:/usr/sbin")):
        limits += ["--runtime", runc]
    with tempfile.TemporaryDirectory() as folder:
        delivered = Path(folder)
        delivered.chmod(0o777)
        mounts = ["-v", f"{tree.path / MODEL}:/model:ro", "-v", f"{delivered}:/mnt/models"]
        said = run(engine, "run", "--rm", *limits, *confined, *mounts, name, "/model", "/mnt/models", cwd=OUT)
        check_same(tree.path / MODEL, said, delivered)


# All of it


def build(repository: Path, version: str) -> None:
    """Build, try and describe everything; without a version, a rehearsal."""
    if version:
        check_tag(repository, version)
    targets = os.environ.get("PLATFORMS", PLATFORMS if version else native()).split()
    started = datetime.now(UTC)
    shutil.rmtree(OUT, ignore_errors=True)
    OUT.mkdir(parents=True)
    with checkout(repository) as tree:
        made = distributions(tree)
        check_distributions(tree, *made)
        print(f"installed and tried: {', '.join(file.name for file in made)}")
        for target in targets:
            archive = image(tree, target)
            check_image(tree, archive)
            print(f"loaded and tried: {archive.name}")
        describe(tree, targets, started)
    print(f"{OUT}: {'version ' + version if version else 'a rehearsal, not to be published'}")


def describe(tree: Tree, targets: Iterable[str], started: datetime) -> None:
    """Write what was built from what, and the digest of everything."""
    base = os.environ.get("BASE", "")
    statement = provenance.statement(
        sorted(OUT.iterdir()),
        {"version": tree.version, "platforms": list(targets), "base": base},
        provenance.materials(tree.path, tree.commit, tree.version, base, os.environ),
        provenance.run_details(started, datetime.now(UTC), os.environ),
    )
    (OUT / f"lading-{tree.version}.intoto.json").write_text(json.dumps(statement, indent=1) + "\n", encoding="utf-8")
    sums = "".join(f"{provenance.sha256(file)}  {file.name}\n" for file in sorted(OUT.iterdir()))
    (OUT / "SHA256SUMS").write_text(sums, encoding="utf-8")


def main() -> int:
    """Do what the first argument says, for the version that the second names."""
    step, version = sys.argv[1], " ".join(sys.argv[2:])
    try:
        {"prepare": prepare, "build": build}[step](ROOT, version)
    except Refused as refused:
        print(refused, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
