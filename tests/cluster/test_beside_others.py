"""A real model server behind lading, and KServe's own storage initializer in its place: both from packages on the machine."""

from pathlib import Path

import pytest

from cluster import images
from cluster.models import IRIS
from cluster.test_wirings import KEYS, MODELS, digests, service, started
from fakes.mlserver import QUESTION, VENV

REFERENCE = Path(__file__).parents[2] / ".bench/kserve"
# As its own entry point does it.
_DOWNLOAD = "import sys; from kserve_storage import Storage; Storage.download_files(sys.argv[1::2], sys.argv[2::2])"
ROUNDS = 3


def test_mlserver_answers_with_the_model_that_was_brought(place, kserve, s3):
    volumes, mounts = place.installed(VENV)
    settings = {"MLSERVER_HTTP_PORT": "8080", "MLSERVER_PARALLEL_WORKERS": "0", "HOME": "/tmp"}
    settings |= {"PYTHONPATH": "/mnt/models", "PYTHONDONTWRITEBYTECODE": "1"}
    made = kserve(
        *(KEYS, MODELS),
        image=images.MACHINE,
        command=[f"{VENV.resolve()}/bin/mlserver", "start", "/mnt/models"],
        env=[{"name": name, "value": value} for name, value in settings.items()],
        volumeMounts=mounts,
        workingDir="/tmp",
    )
    thing = service("s3://models/answering", volumes=volumes)
    (pod,) = started(place, made, thing, KEYS, MODELS)
    assert place.ask(pod, "/v2/models/iris/infer", QUESTION)["outputs"][0]["data"] == ["forty-two"]


@pytest.mark.parametrize("model", ["iris", "large.bin"])
def test_kserves_own_initializer_brings_the_same_to_the_same_pod(place, kserve, s3, model):
    """Their timelines are side by side in the summary of the run."""
    place.apply(KEYS, MODELS)
    volumes, mounts = place.installed(REFERENCE)
    (template,) = kserve(KEYS, MODELS).pods(service(f"s3://models/{model}", volumes=volumes)).values()
    own = template["spec"]["initContainers"][0]
    reference = {
        **own,
        "image": images.MACHINE,
        "command": [f"{REFERENCE.resolve()}/bin/python", "-c", _DOWNLOAD],
        "volumeMounts": [*own["volumeMounts"], *mounts],
    }
    brought = {}
    for number in range(ROUNDS):
        for name, init in (("lading", own), ("reference", reference)):
            template["spec"]["initContainers"] = [init]
            pod = place.ready(place.start(f"{name}-{number}", template))
            brought[name] = place.ask(pod, "/files")
    assert brought["lading"] == brought["reference"]
    if model == "iris":
        assert brought["lading"] == digests(("/mnt/models", IRIS))
    else:
        assert brought["lading"].keys() == {"/mnt/models/large.bin"}
