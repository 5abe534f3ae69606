"""The images of the cluster: lading's, a model server made of it, one without anything, and what holds a pod's namespaces."""

import hashlib
import io
import json
import platform
import shutil
import tarfile
from collections.abc import Callable
from pathlib import Path

from cluster.single_node import HERE, SERVERS, Cluster
from fakes.fake_oci import FakeRegistry
from fakes.image import podman

LADING = "localhost/lading:cluster"
SERVER = "localhost/model-server:1"
MACHINE = "localhost/machine:1"


def bring(cluster: Cluster, image: str, folder: Path) -> None:
    """Import them, as a registry would have brought them."""
    context = folder / "model-server"
    context.mkdir()
    shutil.copy(HERE / "serve.py", context)
    (context / "Containerfile").write_text(
        f'FROM {image}\nCOPY serve.py /serve.py\nENTRYPOINT ["/usr/bin/python3", "-I", "/serve.py"]\n'
    )
    options = ("--runtime", "runc", "--ulimit", "nofile=4096", "--ulimit", "nproc=4096", "--quiet")
    _done(podman("build", *options, "--tag", SERVER, context))
    _done(podman("tag", image, LADING))
    archive = folder / "images.tar"
    _done(podman("save", "--quiet", "--multi-image-archive", "--output", archive, LADING, SERVER))
    cluster.ctr("images", "import", archive)
    cluster.ctr("images", "import", _archive(folder / "pause.tar", "localhost/pause:1", _pause, Entrypoint=["/pause"]))
    cluster.ctr("images", "import", _archive(folder / "machine.tar", MACHINE, _machine))
    archive.unlink()


def push(registry: FakeRegistry, folder: Path) -> None:
    """lading's image as its tag 1."""
    _done(podman("save", "--quiet", "--format", "oci-dir", "--output", folder, LADING))
    blobs = folder / "blobs/sha256"
    (found,) = json.loads((folder / "index.json").read_text())["manifests"]
    manifest = json.loads((blobs / found["digest"].partition(":")[2]).read_text())
    for part in (manifest["config"], *manifest["layers"]):
        registry.put_blob((blobs / part["digest"].partition(":")[2]).read_bytes(), part["mediaType"])
    registry.put_manifest("1", manifest)


def _done(process) -> None:
    assert process.returncode == 0, process.stderr


def _pause(layer: tarfile.TarFile) -> None:
    """One program."""
    layer.add(SERVERS / "pause", "pause")


def _machine(layer: tarfile.TarFile) -> None:
    """Where a pod finds what this machine has in /usr, once that is mounted (``Place.installed``)."""
    for name in ("bin", "lib", "lib64", "sbin"):
        link = tarfile.TarInfo(name)
        link.type, link.linkname = tarfile.SYMTYPE, f"usr/{name}"
        layer.addfile(link)
    folder = tarfile.TarInfo("tmp")
    folder.type, folder.mode = tarfile.DIRTYPE, 0o1777
    layer.addfile(folder)


def _archive(place: Path, name: str, fill: Callable[[tarfile.TarFile], None], **config: object) -> Path:
    """An image of one layer, as ``docker save`` writes it."""
    layer = io.BytesIO()
    with tarfile.open(fileobj=layer, mode="w") as tar:
        fill(tar)
    digest = hashlib.sha256(layer.getvalue()).hexdigest()
    about = {
        "architecture": {"x86_64": "amd64", "aarch64": "arm64"}[platform.machine()],
        "os": "linux",
        "config": {"User": "65535:65535", **config},
        "rootfs": {"type": "layers", "diff_ids": [f"sha256:{digest}"]},
    }
    manifest = [{"Config": "config.json", "RepoTags": [name], "Layers": ["layer.tar"]}]
    parts = {
        "config.json": json.dumps(about).encode(),
        "layer.tar": layer.getvalue(),
        "manifest.json": json.dumps(manifest).encode(),
    }
    with tarfile.open(place, "w") as tar:
        for part, data in parts.items():
            info = tarfile.TarInfo(part)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return place
