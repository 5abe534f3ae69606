"""Many services and ten registries, at the API server: what they cost in requests, in memory and in time.

With SERVICES=1000 QUIET_S=600 it prints the figures of docs/adr/0015 (``pytest -s``).
"""

import json
import os
import subprocess
import time
from collections import Counter
from contextlib import ExitStack, suppress
from functools import partial
from pathlib import Path

import pytest
import yaml

from cluster.api import named
from cluster.conftest import name_for
from cluster.place import Place
from cluster.single_node import ADDRESS
from cluster.test_rollouts import ACCOUNT, SERVICES, Cluster, rollout
from fakes.fake_mlflow import FakeMlflow
from fakes.faulty_http import FaultyServer
from lading.kubernetes.rollouts import ROLLOUTS

NUMBER = int(os.environ.get("SERVICES", "200"))
QUIET_S = float(os.environ.get("QUIET_S", "30"))
REGISTRIES = 10
POLICY = {"apiVersion": "audit.k8s.io/v1", "kind": "Policy", "rules": [{"level": "Metadata"}]}


class Audit:
    """What the controller asks an API server, by its log of requests."""

    def __init__(self, folder: Path, user: str) -> None:
        self._user, self._log = user, folder / "audit.log"
        (folder / "audit.yaml").write_text(yaml.safe_dump(POLICY))
        self.options = [f"--audit-policy-file={folder / 'audit.yaml'}", f"--audit-log-path={self._log}"]

    def requests(self) -> Counter[str]:
        """By verb and resource, from the beginning."""
        found = {}
        for line in self._log.read_text().splitlines():
            event = json.loads(line)
            if event["user"]["username"] == self._user:
                about = event.get("objectRef", {})
                found[event["auditID"]] = "/".join(filter(None, (about.get("resource"), about.get("subresource"))))
                found[event["auditID"]] = f"{event['verb']} {found[event['auditID']]}"
        return Counter(found.values())


class Figures:
    """Rows of a table: for each step its seconds, and the requests of the controller meanwhile."""

    def __init__(self, audit: Audit, registries: list[FaultyServer]) -> None:
        self._audit, self._registries = audit, registries
        self._begin()

    def _begin(self) -> None:
        self._since_s = time.monotonic()
        self._before, self._asked = self._audit.requests(), sum(len(each.requests) for each in self._registries)

    def end(self, step: str) -> tuple[Counter[str], int, float]:
        """The requests to the API server and to registries, and the seconds, since the step before."""
        seconds = time.monotonic() - self._since_s
        requests = self._audit.requests() - self._before
        asked = sum(len(each.requests) for each in self._registries) - self._asked
        told = ", ".join(f"{number} {what}" for what, number in requests.most_common())
        print(f"| {step} | {seconds:.0f} | {requests.total()} | {asked} | {told} |")
        self._begin()
        return requests, asked, seconds


@pytest.fixture
def place(cluster, api, request):
    request.getfixturevalue("kinds")
    with Place(cluster, api, name_for(request)) as place:
        yield place


@pytest.fixture
def registries(cluster):
    """Ten servers of MLflow, each with two versions of a model."""
    with ExitStack() as stack:
        servers = []
        for number in range(REGISTRIES):
            with cluster.within():
                server = stack.enter_context(FaultyServer(host=ADDRESS, address=ADDRESS))
            mlflow = FakeMlflow(server)
            for version in (b"one", b"two"):
                mlflow.add("iris", {"MLmodel": b"flavors: {}", "weights": version + b"%d" % number})
            mlflow.aliases["iris"] = {"champion": 1}
            servers.append((server, mlflow))
        yield servers


def channel(number: int) -> str:
    return f"model-registry://r{number}/iris@champion"


def service(namespace: str, number: int) -> dict:
    registry = number % REGISTRIES
    about = {"name": f"iris-{number}", "namespace": namespace, "labels": {"registry": f"r{registry}"}}
    model = {"modelFormat": {"name": "sklearn"}, "storageUri": channel(registry)}
    spec = {"predictor": {"model": model}}
    return {"apiVersion": SERVICES.api, "kind": SERVICES.kind, "metadata": about, "spec": spec}


def test_many_services_take_few_requests_and_bounded_memory(cluster, place, new_session, tmp_path, registries):
    """They are all scaled to zero in the end: nobody plays their pods."""
    audit = Audit(tmp_path, f"system:serviceaccount:{place.name}:{ACCOUNT}")
    entries = [{"name": f"r{number}", "kind": "mlflow", "url": one.url} for number, (_, one) in enumerate(registries)]
    with cluster.within(), cluster.another_api_server(*audit.options) as url:
        world = Cluster(cluster, place, new_session(), tmp_path)
        world.may("controller/rbac.yaml")
        for number in range(NUMBER):
            world.admin.create(SERVICES, service(place.name, number))
        for number in range(REGISTRIES):
            labels = {"registry": f"r{number}"}
            selector = {"kind": "InferenceService", "matchLabels": labels}
            place.api.apply(rollout(place, f"r{number}", targetRef=None, selector=selector, hold="0s"))
        figures = Figures(audit, [server for server, _ in registries])
        with world.controller(server=url, registries=entries) as process:
            world.until_all_have("1")
            until_all(world, "Current")
            first, _, _ = figures.end("first pins")
            quiet, asked, seconds = during(process, figures, "nothing changes")
            for _, mlflow in registries:
                mlflow.aliases["iris"] = {"champion": 2}
            world.until_all_have("2")
            moved, _, _ = figures.end("all aliases move")
            until_all(world, "Idle")
            figures.end("until all are idle")
            during(process, figures, "all services are scaled to zero")
            memory = peak_memory_bytes(process.pid)
        print(f"{NUMBER} services, {REGISTRIES} registries: {memory >> 20} MiB at most")
    assert memory < 256 << 20
    assert first.total() < 8 * NUMBER + 100
    assert moved.total() < 7 * NUMBER + 100
    # The Lease each 15 s, and the watches; each registry is asked once a minute for all of its services.
    assert quiet.total() <= seconds / 15 * 2 + 3 * (seconds / 290 + 1) + 5
    assert quiet.keys() <= {"get leases", "update leases", *(f"watch {plural}" for plural in PLURALS)}
    assert asked <= REGISTRIES * 8 * (seconds / 54 + 1)


PLURALS = ("modelrollouts", "inferenceservices", "llminferenceservices")


def during(process: subprocess.Popen, figures: Figures, step: str) -> tuple[Counter[str], int, float]:
    """The figures of some time in which nobody does anything."""
    with suppress(subprocess.TimeoutExpired):
        process.wait(QUIET_S)
    return figures.end(step)


def until_all(world: Cluster, phase: str) -> None:
    """Until each rollout of many services says that all of them are in this phase."""
    for number in range(REGISTRIES):
        name = named(ROLLOUTS.kind, f"r{number}", world.place.name, ROLLOUTS.api)
        world.place.api.until(name, partial(is_all, phase), 400)


def is_all(phase: str, thing: dict) -> bool:
    return f": {NUMBER // REGISTRIES} {phase}" in thing.get("status", {}).get("message", "")


def peak_memory_bytes(pid: int) -> int:
    """Of the process that was started in the cluster's network: ``nsenter`` has become it."""
    status = Path(f"/proc/{pid}/status").read_text()
    return int(status.partition("VmHWM:")[2].split()[0]) << 10
