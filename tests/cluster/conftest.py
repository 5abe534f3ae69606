"""The cluster, what is in it, and servers that only its pods reach: ``make test-cluster`` installs what this needs.

Whatever is missing is an error here, never a skip.
"""

import hashlib
import re
import signal
from contextlib import ExitStack
from pathlib import Path
from typing import NamedTuple

import pytest
import yaml

from cluster import images
from cluster.api import Api, Object, Refused, named
from cluster.models import IRIS, LARGE_BYTES, LAW
from cluster.names import Names
from cluster.place import BUNDLE, TIMELINES, Place
from cluster.single_node import ADDRESS, HERE, Cluster
from fakes.certificates import Authority
from fakes.faulty_http import FaultyServer
from fakes.image import build
from fakes.kserve import KServe
from fakes.mlserver import write_model
from fakes.real_mlflow import mlflow_server, wait_for
from fakes.real_s3 import rclone
from fakes.trees import write_tree
from lading.controller.service import KINDS
from lading.kubernetes.api_server import Resource

CRDS = HERE.parent / "fakes/kserve_crds"
DEPLOY = HERE.parents[1] / "deploy"


def pytest_collection_modifyitems(items):
    """The first test of all builds the image."""
    for item in items:
        if HERE in item.path.parents:
            item.add_marker(pytest.mark.timeout(900))


def pytest_terminal_summary(terminalreporter):
    """A timeline of each pod: benchmarks/results/cluster.md keeps those of one run."""
    names = ("scheduled", "started", "delivered", "ready", "initializer")
    if TIMELINES:
        terminalreporter.section("seconds since a pod was asked for, and that its storage initializer ran")
        terminalreporter.write_line(f"| pod | {' | '.join(names)} |")
        terminalreporter.write_line("|---|" + "---|" * len(names))
    for pod, seen in TIMELINES:
        cells = (f"{seen[name]:.2f}" if name in seen else "" for name in names)
        terminalreporter.write_line(f"| {pod} | {' | '.join(cells)} |")


@pytest.fixture(scope="session")
def cluster(tmp_path_factory):
    # Whoever ends the run, also from outside and where an interrupt was ignored: the cluster is taken down first.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.default_int_handler)
    with Cluster(tmp_path_factory.mktemp("cluster")) as cluster:
        yield cluster


@pytest.fixture(scope="session")
def api(cluster):
    return Api(cluster)


@pytest.fixture(scope="session")
def names(cluster, api):
    def address_of(name: str, namespace: str) -> str | None:
        try:
            return api.get(named("Service", name, namespace))["spec"]["clusterIP"]
        except Refused:
            return None

    with Names(cluster.socket_for_names(), address_of) as names:
        yield names


@pytest.fixture(scope="session")
def node(cluster, api, names, tmp_path_factory):
    """The node, ready, with the images and KServe's kinds of objects."""
    image = build(tmp_path_factory.mktemp("image") / "sources", "localhost/lading:tested")
    images.bring(cluster, image, tmp_path_factory.mktemp("images"))
    for path in sorted(CRDS.iterdir()):
        api.apply(yaml.safe_load(path.read_text()))
    return api.until(named("Node", "node1"), is_ready)


def is_ready(thing: Object) -> bool:
    conditions = thing.get("status", {}).get("conditions", [])
    return any((one["type"], one["status"]) == ("Ready", "True") for one in conditions)


def kind_of(resource: Resource, spec: dict) -> dict:
    """As much of a kind of KServe's as a controller sees: which fields are maps, and a status apart."""
    group, _, version = resource.api.partition("/")
    anything = {"type": "object", "x-kubernetes-preserve-unknown-fields": True}
    schema = {"type": "object", "properties": {"spec": {**anything, "properties": spec}, "status": anything}}
    about = {"plural": resource.plural, "singular": resource.kind.lower(), "kind": resource.kind}
    served = {"name": version, "served": True, "storage": True, "subresources": {"status": {}}}
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": f"{resource.plural}.{group}"},
        "spec": {
            "group": group,
            "scope": "Namespaced",
            "names": about,
            "versions": [{**served, "schema": {"openAPIV3Schema": schema}}],
        },
    }


@pytest.fixture(scope="session")
def kinds(api):
    """The kinds of objects, as the API server has taken them without a warning."""
    notes = {"annotations": {"type": "object", "additionalProperties": {"type": "string"}}}
    part = {"type": "object", "properties": notes, "x-kubernetes-preserve-unknown-fields": True}
    for thing in (
        kind_of(KINDS["InferenceService"].resource, {"predictor": part}),
        kind_of(KINDS["LLMInferenceService"].resource, {**notes, "prefill": part}),
        yaml.safe_load((DEPLOY / "controller/crd.yaml").read_text()),
    ):
        assert api.apply(thing) == []
        api.until(thing, is_established)


def is_established(thing):
    conditions = thing.get("status", {}).get("conditions") or []
    return any((one["type"], one["status"]) == ("Established", "True") for one in conditions)


@pytest.fixture(scope="session")
def publish(api):
    """Gives a server of this process the name and the port of a service."""

    def publish(name: str, namespace: str, port: int, url: str) -> str:
        api.apply(named("Namespace", namespace))
        about = {"name": name, "namespace": namespace}
        ports = [{"name": "http", "port": int(url.rpartition(":")[2]), "protocol": "TCP"}]
        api.apply(
            {
                "apiVersion": "v1",
                "kind": "Service",
                "metadata": about,
                "spec": {"ports": [{"name": "http", "port": port, "targetPort": ports[0]["port"]}]},
            },
            {
                "apiVersion": "discovery.k8s.io/v1",
                "kind": "EndpointSlice",
                "metadata": {**about, "labels": {"kubernetes.io/service-name": name}},
                "addressType": "IPv4",
                "endpoints": [{"addresses": [ADDRESS]}],
                "ports": ports,
            },
        )
        return f"{name}.{namespace}.svc:{port}"

    return publish


@pytest.fixture(scope="session")
def buckets(cluster, publish, tmp_path_factory):
    """The folder whose folders are buckets of s3.minio.svc:9000, which checks signatures."""
    folder = tmp_path_factory.mktemp("buckets")
    write_tree(folder / "models/iris", IRIS)
    write_tree(folder / "models/law", LAW)
    write_model(folder / "models/answering", b"forty-two", with_runtime=True)
    with (folder / "models/large.bin").open("wb") as file:
        file.truncate(LARGE_BYTES)
    with rclone(folder, ADDRESS, cluster.client) as url:
        publish("s3", "minio", 9000, url)
        yield folder


@pytest.fixture(scope="session")
def s3(buckets):
    """Has the models."""


class Mlflow(NamedTuple):
    """A real MLflow server: its URL, and its name and port for pods."""

    url: str
    host: str


@pytest.fixture(scope="session")
def mlflow(cluster, publish, tmp_path_factory):
    """The server mlflow.registry.svc:5000."""
    options = ("--backend-store-uri", "sqlite:///mlflow.db", "--artifacts-destination", "artifacts")
    options = (*options, "--allowed-hosts", "*")
    folder = tmp_path_factory.mktemp("mlflow") / "server"
    with mlflow_server(folder, *options, address=ADDRESS, within=cluster.client) as url:
        with cluster.within():
            wait_for(url)
        yield Mlflow(url, publish("mlflow", "registry", 5000, url))


@pytest.fixture
def server(cluster):
    """A server that only pods reach, and that fails when it is told to."""
    with cluster.within():
        server = FaultyServer(host=ADDRESS, address=ADDRESS)
    with server:
        yield server


@pytest.fixture
def cloud(cluster, publish, names, place, tmp_path):
    """A server that pods find by names of the world outside, over TLS; the ConfigMap by which they trust it is in their namespace."""
    with ExitStack() as stack:

        def cloud(*hosts: str) -> FaultyServer:
            authority = Authority(tmp_path)
            with cluster.within():
                server = FaultyServer(authority.server_context(*hosts), host=ADDRESS, address=ADDRESS)
            stack.enter_context(server)
            publish("cloud", place.name, 443, server.url)
            names.hosts |= dict.fromkeys(hosts, ("cloud", place.name))
            bundle = named("ConfigMap", BUNDLE)
            place.apply({**bundle, "data": {"cabundle.crt": Path(authority.bundle).read_text()}})
            return server

        yield cloud
    names.hosts.clear()


@pytest.fixture
def place(node, api, cluster, request):
    """A namespace that enforces the restricted standard, for one test."""
    with Place(cluster, api, name_for(request)) as place:
        yield place


@pytest.fixture
def open_place(node, api, cluster, request):
    """The same, of the baseline standard."""
    with Place(cluster, api, name_for(request), {"pod-security.kubernetes.io/enforce": "baseline"}) as place:
        yield place


def name_for(request) -> str:
    """A test's namespace: readable, and its own."""
    words = re.sub(r"[^a-z0-9]+", "-", request.node.name.removeprefix("test_").lower())
    return f"{words[:40].strip('-')}-{hashlib.sha256(request.node.nodeid.encode()).hexdigest()[:4]}"


@pytest.fixture(scope="session")
def storage():
    """The containers of the base, with lading's image."""

    def storage(*folders: str) -> list[Object]:
        found = []
        for path in (path for folder in ("base", *folders) for path in sorted((DEPLOY / folder).glob("*.yaml"))):
            for thing in yaml.safe_load_all(path.read_text()):
                if thing.get("kind") == "ClusterStorageContainer":
                    thing["spec"]["container"]["image"] = images.LADING
                    found.append(thing)
        return found

    return storage


@pytest.fixture
def kserve(storage, place):
    """KServe as it is installed, in the test's namespace."""

    def kserve(*objects: Object, folders: tuple[str, ...] = (), ca_bundle: str = "", **server) -> KServe:
        made = place.model_server(**server)
        return KServe(storage(*folders), list(objects), image=images.LADING, server=made, ca_bundle=ca_bundle)

    return kserve
