"""docs/walkthrough.md, made anew: each command of the page is run, and says what the page says."""

import json
import re
from pathlib import Path

import pytest
import yaml

from cluster.test_wirings import KEYS, MODELS, PREDICTION, QUESTION, service, started

PAGE = Path(__file__).parents[2] / "docs/walkthrough.md"
POD = "iris-predictor"


def steady(text, place):
    """Without what differs from run to run: names, addresses, times, amounts of time."""
    text = text.replace(place.name, "models")
    text = re.sub(r"\b10\.97\.0\.\d+", "10.97.0.7", text)
    text = re.sub(r"\b\d+(\.\d+)?m?s\b", "2s", text)
    text = re.sub(r'"seconds": [\d.]+', '"seconds": 0.1', text)
    text = re.sub(r"in \d+(\.\d+)? m?s\b", "in 0.1 s", text)
    text = re.sub(r"\([\d.]+ [KMG]?i?B/s\)", "(2.8 MiB/s)", text)
    text = re.sub(r"sha256:[0-9a-f]{64}", "sha256:…", text)
    return "\n".join(line.rstrip() for line in text.splitlines())


@pytest.fixture
def transcript(place, kserve, s3):
    """The commands and what they said, as a page has them."""
    thing = service("s3://models/iris")
    (pod,) = started(place, kserve(KEYS, MODELS), thing, KEYS, MODELS)
    status = "jsonpath={.status.initContainerStatuses[0].state.terminated.message}"
    manifests = "---\n".join(yaml.safe_dump(one, sort_keys=False) for one in (KEYS, MODELS, thing))
    manifests = manifests.replace(KEYS["stringData"]["AWS_SECRET_ACCESS_KEY"], "…")
    commands = [
        (f"kubectl get pod {POD}", place.kubectl("get", "pod", POD)),
        (f"kubectl logs {POD} -c storage-initializer", place.log(pod)),
        (f"kubectl get pod {POD} -o '{status}'", place.kubectl("get", "pod", POD, "-o", status)),
    ]
    answer = json.dumps(place.ask(pod, "/v2/models/iris/infer", QUESTION))
    assert str(PREDICTION) in answer
    commands.append(
        (f"curl -d '{json.dumps(QUESTION)}' http://{pod['status']['podIP']}:8080/v2/models/iris/infer", answer)
    )
    said = "\n".join(f"$ {command}\n{steady(output, place)}" for command, output in commands)
    return f"```yaml\n{manifests}```\n\n```console\n{steady(said, place)}\n```\n"


def test_the_page_is_what_happens(transcript):
    page = PAGE.read_text()
    assert transcript in page, f"{PAGE} should hold:\n{transcript}"
