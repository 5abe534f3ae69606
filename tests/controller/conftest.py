"""A cluster with a service, a rollout and a catalog whose alias moves."""

import json
import threading
from collections.abc import Callable
from contextlib import ExitStack

import pytest
import yaml

from fakes.fake_api_server import FakeApiServer, merged
from fakes.faulty_http import ANYWHERE, FaultyServer
from fakes.trees import write_tree
from lading.controller.asking import Asking
from lading.controller.controller import Controller
from lading.controller.service import ANNOTATION, KINDS
from lading.controller.telling import NAME
from lading.errors import Interrupted
from lading.kubernetes.api_server import ApiServer
from lading.kubernetes.leader import Leader
from lading.kubernetes.rollouts import ROLLOUTS
from lading.secret import Secret
from lading.session import Session
from lading.settings.kubernetes import Access
from lading.settings.limits import Limits, Network
from lading.settings.settings import Settings

SERVICES = KINDS["InferenceService"].resource.path().lstrip("/")
LLMS = KINDS["LLMInferenceService"].resource.path().lstrip("/")
MRO = ROLLOUTS.path().lstrip("/")
PODS = "api/v1/pods"
EVENTS = "apis/events.k8s.io/v1/events"
CHANNEL = "model-registry://iris@champion"


class World:
    def __init__(self, folder, server: FaultyServer, clock, listener, stack: ExitStack) -> None:
        self.stack = stack
        self.server, self.clock, self.listener = server, clock, listener
        self.api = FakeApiServer(server)
        self.catalog = folder / "catalog.yaml"
        for name in ("v1", "v2", "v3"):
            write_tree(folder / name, {"weights": name.encode()})
        self.registries = [{"name": "catalog", "kind": "catalog", "path": str(self.catalog)}]
        self.unix_s = 1_800_000_000.0
        # The section ``controller`` of the configuration.
        self.allowed: dict[str, object] = {}
        self.trust: list[dict[str, object]] = []
        self.champion("v1")
        self.start()

    def start(self, instance: str = "first") -> None:
        """A controller; one that was there before is as good as killed."""
        session = Session(Settings(limits=Limits(stall_s=5.0, connect_s=5.0, attempts=2)), self.listener, self.clock)
        self.run = session.run
        access = Access(self.server.url, "lading", Network(), token=Secret("t0ken"))
        self.stack.enter_context(session)
        api = ApiServer(access, session.http)
        asking = Asking.of(self.settings, self.clock, lambda: None)
        self.questions, self.checks, self.records = asking
        leader = Leader(api, NAME, "lading", instance)
        self.told: list[str] = []
        self.controller = Controller(
            api,
            asking,
            leader,
            lambda _: lambda event: self.told.append(event.reason),
            namespace="",
            instance=instance,
            woken=threading.Event(),
            unix_time=lambda: self.unix_s,
        )

    def settings(self) -> Settings:
        config = {"registries": self.registries, "limits": {"attempts": 1}}
        config |= {"controller": self.allowed, "trust": self.trust}
        return Settings.load({"LADING_CONFIG_YAML": yaml.safe_dump(config)})

    def champion(self, version: str) -> None:
        versions = {name: {"uri": name, "state": "live"} for name in ("v1", "v2", "v3")}
        text = yaml.safe_dump({"models": {"iris": {"aliases": {"champion": version}, "versions": versions}}})
        self.catalog.write_text(text)

    def serve(
        self, name: str = "iris", *, ready: bool = False, uri: str = CHANNEL, mode: str = "Standard", **about
    ) -> None:
        status = {"conditions": [{"type": "Ready", "status": str(ready)}], "deploymentMode": mode}
        spec = {"predictor": {"model": {"storageUri": uri}}}
        there = self.api.objects.get(f"/{SERVICES}/team-a/{name}", {}).get("spec", {})
        self.api.put(SERVICES, name, spec=merged(there, spec), status=status, metadata=about)

    def roll_out(self, name: str = "follow", *, kind: str = "InferenceService", of: str = "iris", **spec) -> None:
        self.put_rollout(name, targetRef={"kind": kind, "name": of}, **spec)

    def select(self, name: str, labels: dict[str, str], **spec) -> None:
        self.put_rollout(name, selector={"kind": "InferenceService", "matchLabels": labels}, **spec)

    def put_rollout(self, name: str, **spec) -> None:
        spec = {"hold": "0s", **spec}
        there = self.api.objects.get(f"/{MRO}/team-a/{name}", {})
        about = {"creationTimestamp": f"2026-11-29T{len(self.api.objects):02}:00:00Z", **there.get("metadata", {})}
        about["generation"] = about.get("generation", 0) + 1
        self.api.put(MRO, name, **{**there, "spec": spec, "metadata": about})

    def watch(self) -> None:
        """The watches see what there is now, and end."""

        def stop() -> None:
            self.run.stop.set()

        for resource, watch in zip((MRO, SERVICES, LLMS), self.controller.watchers().values(), strict=True):
            self.server.misbehave(f"/{resource}", self.server.before(stop, on=lambda one: "watch=1" in one.query))
            watch()
            self.run.stop.clear()

    def tick(self, seconds: float = 0.0, times: int = 1) -> None:
        """Time passes, watches bring what has changed, names are asked, rollouts are reconciled."""
        for _ in range(times):
            self.clock.seconds += seconds
            self.unix_s += seconds
            self.watch()
            self.controller.tick()
            self.questions.agenda.serve(forever=False)
            self.controller.tick()
            self.checks.agenda.serve(forever=False)
            self.records.agenda.serve(forever=False)
            self.controller.tick()

    def kill_after(self, writes: int) -> None:
        """The process gets no further than this write."""
        fault = self.server.before(self.run.stop.set, on=lambda one: one.method != "GET", after=writes)
        self.server.misbehave(ANYWHERE, fault)

    def killed_after(self, writes: int, steps: int, go_on: Callable[["World", int], None]) -> None:
        """Go through these steps; the process is killed after so many writes, and another one takes the step again."""
        self.kill_after(writes)
        for step in range(steps):
            try:
                go_on(self, step)
            except Interrupted:
                self.server.behave()
                self.start(f"after-{step}")
                self.tick()
                self.tick(61)
                go_on(self, step)

    @property
    def pinned(self) -> str:
        """The version in the annotation."""
        return json.loads(self.lock)["models"][CHANNEL]["version"] if self.lock else ""

    @property
    def canary(self) -> dict:
        """The canary of the service; {} if it has none."""
        return next(iter(self.one(SERVICES)["spec"].get("canary", ())), {})

    def canary_pods(self, **about) -> None:
        """The canary's pod, or none if there is no canary."""
        if self.canary:
            self.pods(self.canary["predictor"]["annotations"][ANNOTATION], name="iris-candidate-0", **about)
        elif f"/{PODS}/team-a/iris-candidate-0" in self.api.objects:
            self.api.remove(PODS, "iris-candidate-0")

    @property
    def written(self) -> list[str]:
        """The versions that were written to the service, in order."""
        found = [one for one in self.server.requests if one.method == "PATCH" and one.path.endswith("services/iris")]
        texts = [json.loads(one.body)["spec"]["predictor"]["annotations"][ANNOTATION] for one in found]
        return [json.loads(text)["models"][CHANNEL]["version"] for text in texts]

    def one(self, collection: str, name: str = "iris") -> dict:
        return self.api.objects[f"/{collection}/team-a/{name}"]

    @property
    def status(self) -> dict:
        return self.one(MRO, "follow")["status"]

    @property
    def lock(self) -> str:
        return self.one(SERVICES)["spec"]["predictor"].get("annotations", {}).get(ANNOTATION, "")

    def pods(
        self,
        lock: str | None = None,
        *,
        ready: bool = True,
        exit_code: int | None = None,
        message: str = "",
        name: str = "iris-0",
    ) -> None:
        """One pod, with this lock; the one before of this name is gone."""
        condition = {"type": "Ready", "status": str(ready)}
        ended = {"exitCode": exit_code or 0, "message": message}
        state = {"state": {"terminated": ended}}
        self.api.put(
            PODS,
            name,
            metadata={"annotations": {ANNOTATION: self.lock if lock is None else lock}},
            status={
                "conditions": [condition],
                "initContainerStatuses": [{"name": "storage-initializer", **state}],
                "podIP": "127.0.0.1",
            },
        )

    def events(self) -> list[str]:
        found = [thing for path, thing in self.api.objects.items() if path.startswith(f"/{EVENTS}/")]
        return sorted(f"{event['regarding']['kind']} {event['reason']}" for event in found)


@pytest.fixture
def world(tmp_path, server, clock, events):
    with ExitStack() as stack:
        yield World(tmp_path, server, clock, events.append, stack)
