"""The images of the cluster: lading's, a model server made of it, and what holds a pod's namespaces."""

import hashlib
import io
import json
import platform
import shutil
import tarfile
from pathlib import Path

from cluster.single_node import HERE, SERVERS, Cluster
from fakes.fake_oci import FakeRegistry
from fakes.image import podman

LADING = "localhost/lading:cluster"
SERVER = "localhost/model-server:1"


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
    cluster.ctr("images", "import", _pause(folder / "pause.tar"))
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


def _pause(archive: Path) -> Path:
    """One program, as ``docker save`` writes an image."""
    layer = io.BytesIO()
    with tarfile.open(fileobj=layer, mode="w") as tar:
        tar.add(SERVERS / "pause", "pause")
    digest = hashlib.sha256(layer.getvalue()).hexdigest()
    config = {
        "architecture": {"x86_64": "amd64", "aarch64": "arm64"}[platform.machine()],
        "os": "linux",
        "config": {"Entrypoint": ["/pause"], "User": "65535:65535"},
        "rootfs": {"type": "layers", "diff_ids": [f"sha256:{digest}"]},
    }
    manifest = [{"Config": "config.json", "RepoTags": ["localhost/pause:1"], "Layers": ["layer.tar"]}]
    parts = {
        "config.json": json.dumps(config).encode(),
        "layer.tar": layer.getvalue(),
        "manifest.json": json.dumps(manifest).encode(),
    }
    with tarfile.open(archive, "w") as tar:
        for name, data in parts.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return archive
