"""The controller's manifests and the schema of ModelRollouts; what an API server says of them: tests/cluster."""

import re
from pathlib import Path
from typing import get_args

import jsonschema
import pytest
import yaml

from lading.controller.service import KINDS
from lading.controller.shown import METRICS
from lading.controller.telling import NAME
from lading.errors import UsageError
from lading.kubernetes.leader import LEASES
from lading.kubernetes.rollouts import ROLLOUTS
from lading.rollout.in_spec import read_policy, read_target, shown_target
from lading.rollout.in_status import status_of
from lading.rollout.policy import Policy, Update
from lading.rollout.state import Canary, Past, Phase, Refusal, State, Version
from lading.settings.agent import read_agent
from lading.settings.settings import Settings

DEPLOY = Path(__file__).parents[2] / "deploy"
CRD = yaml.safe_load((DEPLOY / "controller/crd.yaml").read_text())["spec"]
SCHEMA = CRD["versions"][0]["schema"]["openAPIV3Schema"]
SPEC = SCHEMA["properties"]["spec"]["properties"]
PIN = f"model-registry://prod/iris/v3?pin=sha256:{'5f' * 32}"
# One value of every field that is not its default.
FIELDS = {
    "update": "Approve",
    "every": "61s",
    "hold": "1h",
    "window": {"cron": "0 2 * * 1-5", "length": "3h", "timeZone": "Europe/Berlin"},
    "allow": {"versions": ">=1.2, <2", "signedBy": ["key sha256:5f"]},
    "checks": [{"name": "ready", "http": {"path": "/ready", "port": 80, "status": 204}, "timeout": "9s"}],
    "rollback": {"deadline": "1h", "quarantine": "24h"},
    "maxConcurrent": 3,
    "history": 7,
    "record": True,
    "strategy": {"type": "Canary", "canary": {"steps": [{"percent": 10, "pause": "10m"}]}},
    "approve": f"sha256:{'5f' * 32}",
    "approveStep": {"version": f"sha256:{'5f' * 32}", "step": 1},
    "pin": PIN,
}
TARGET = {"kind": "InferenceService", "name": "iris"}
SELECTOR = {"kind": "InferenceService", "matchLabels": {"team": "tabular"}}


def rules(path):
    return [
        rule
        for thing in yaml.safe_load_all((DEPLOY / path).read_text())
        for rule in thing.get("rules", ())
        if "leases" not in rule["resources"]
    ]


def valid(spec):
    thing = {"apiVersion": ROLLOUTS.api, "kind": ROLLOUTS.kind, "metadata": {"name": "iris"}, "spec": spec}
    jsonschema.validate(thing, SCHEMA)


def test_the_schema_is_of_the_resource_that_the_controller_asks_for():
    assert f"{CRD['group']}/{CRD['versions'][0]['name']}" == ROLLOUTS.api
    assert (CRD["names"]["plural"], CRD["names"]["kind"]) == (ROLLOUTS.plural, ROLLOUTS.kind)
    for field in ("targetRef", "selector"):
        assert set(SPEC[field]["properties"]["kind"]["enum"]) == set(KINDS)
    assert tuple(SPEC["update"]["enum"]) == get_args(Update)


def policy_of(spec):
    """None if the spec is refused."""
    try:
        return read_policy(spec)
    except UsageError:
        return None


def test_every_field_of_the_schema_does_something():
    assert SPEC.keys() == {"targetRef", "selector", *FIELDS}
    for name, value in FIELDS.items():
        valid({"targetRef": TARGET, name: value})
        assert read_policy({name: value}) != Policy(), name
        if isinstance(value, dict):
            assert SPEC[name]["properties"].keys() == value.keys()
            optional = value.keys() - set(SPEC[name].get("required", ()))
            for part in optional:
                lacking = {key: each for key, each in value.items() if key != part}
                assert read_policy({name: value}) != policy_of({name: lacking}), part
    assert read_target({"targetRef": TARGET}) == ("InferenceService", "iris")
    valid({"selector": SELECTOR})
    assert shown_target({"selector": SELECTOR}) == "InferenceService team=tabular"


def test_the_defaults_of_the_schema_are_those_of_the_policy():
    assert read_policy({name: field["default"] for name, field in SPEC.items() if "default" in field}) == Policy()


@pytest.mark.parametrize("name", ["every", "hold"])
@pytest.mark.parametrize("value", ["", "5", "1.5m", "-5m", "5 m", "1d", "9999999s"])
def test_what_is_no_duration_is_refused(name, value):
    with pytest.raises(jsonschema.ValidationError):
        valid({"targetRef": TARGET, name: value})


CHECKS = [
    {"name": "a", "http": {"path": "/v2/models/iris/ready"}},
    {"name": "a", "http": {"path": "/", "port": 1, "status": 599}, "timeout": "10s"},
    {"name": "a", "http": {"url": "https://models.example.com:8443/a/b?c=d"}},
    {"name": "a", "prometheus": {"query": "up", "max": 0.01}},
    {"name": "a", "prometheus": {"query": "up", "min": 1, "max": 2}},
]


@pytest.mark.parametrize("check", CHECKS, ids=str)
def test_a_check_is_read_with_all_that_it_says(check):
    valid({"targetRef": TARGET, "checks": [check]})
    (found,) = read_policy({"checks": [check]}).checks
    told = {**check.get("http", {}), **check.get("prometheus", {})}
    names = {"min": "least", "max": "most"}
    assert {getattr(found, names.get(name, name)) for name in told} == set(told.values())
    assert found.timeout_s == float(check.get("timeout", "5s")[:-1])


@pytest.mark.parametrize(
    "http",
    [
        {"path": "ready"},
        {"path": "/a b"},
        {"path": "/a\r\nHost: b"},
        {"path": "/%2e%2e/"},
        {"path": "/@b"},
        {"port": 0, "path": "/"},
        {"port": 65536, "path": "/"},
        {"status": 99, "path": "/"},
        {"url": "file:///etc/passwd"},
        {"url": "http://user:secret@models/"},
        {"url": "gopher://models/"},
        {"url": "http://[::1]/"},
        {"url": "http://models\\@inside/"},
    ],
    ids=str,
)
def test_a_check_that_could_ask_for_something_else_is_refused(http):
    with pytest.raises(jsonschema.ValidationError):
        valid({"targetRef": TARGET, "checks": [{"name": "a", "http": http}]})


def test_every_field_has_a_description_that_kubectl_explain_shows():
    for name, field in SPEC.items():
        assert field["description"], name
        for part, inner in field.get("properties", {}).items():
            assert inner.get("description") or name == "targetRef", part


def test_the_schema_takes_the_status_that_is_written():
    version = Version(PIN, "v3", "key sha256:5f")
    state = State("model-registry://iris@champion", version, version, 1.0, "RolledBack", 2.0, "why", "away")
    state = state._replace(
        refused=(Refusal(PIN, 1, 3.0, "why", "CheckFailed"),), history=(Past(version, 1.0, "RolledBack", "why"),)
    )
    status = status_of(state._replace(canary=Canary(1, 10, 1.0)), (), 4)
    fields = SCHEMA["properties"]["status"]["properties"]
    assert status.keys() == fields.keys()
    for name in ("current", "candidate", "canary"):
        assert status[name].keys() == fields[name]["properties"].keys()
    for name in ("refused", "history"):
        assert status[name][0].keys() == fields[name]["items"]["properties"].keys()
    told = fields["phase"]["description"]
    assert [phase for phase in get_args(Phase) if phase not in told] == []


def test_both_installs_may_do_the_same_and_neither_reads_secrets_nor_runs_anything():
    assert rules("controller/rbac.yaml") == rules("controller-namespaced/role.yaml")
    allowed = {resource for rule in rules("controller/rbac.yaml") for resource in rule["resources"]}
    assert allowed == {
        *("modelrollouts", "modelrollouts/status", "inferenceservices", "llminferenceservices", "pods", "events")
    }
    assert not any("*" in verb for rule in rules("controller/rbac.yaml") for verb in rule["verbs"])


def test_the_lease_is_the_one_that_the_role_names():
    (named,) = [
        rule["resourceNames"]
        for thing in yaml.safe_load_all((DEPLOY / "controller/rbac.yaml").read_text())
        for rule in thing.get("rules", ())
        if rule["resources"] == [LEASES.plural] and "resourceNames" in rule
    ]
    assert named == [NAME]


def test_the_controllers_configuration_is_what_lading_reads_and_its_probes_reach_it():
    own = read_agent(Settings.load({"LADING_CONFIG": str(DEPLOY / "controller/lading.yaml")}))
    pod = yaml.safe_load((DEPLOY / "controller/deployment.yaml").read_text())["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    assert (container["ports"][0]["containerPort"], own.listen) == (own.port, "0.0.0.0")
    assert container["command"][1:] == ["controller"]
    assert container["securityContext"]["readOnlyRootFilesystem"]
    assert {mount["mountPath"] for mount in container["volumeMounts"]} >= {"/etc/lading", "/tmp"}


def test_the_example_is_what_the_schema_takes():
    service, rollout = yaml.safe_load_all((DEPLOY / "examples/rollout.yaml").read_text())
    jsonschema.validate(rollout, SCHEMA)
    assert rollout["spec"]["targetRef"] == {"kind": service["kind"], "name": service["metadata"]["name"]}
    assert read_policy(rollout["spec"]).window is not None


def test_every_metric_is_on_the_page_and_nothing_else():
    page = (DEPLOY.parent / "docs/rollouts.md").read_text()
    rows = re.findall(r"^\| `(lading_\w+)` \| (\w+) \| (.*?) \| (.*) \|$", page, re.MULTILINE)
    told = {name: (kind, tuple(re.findall(r"`(\w+)`", labels)), text) for name, kind, labels, text in rows}
    assert told == {name: (metric.kind, metric.labels, metric.help) for name, metric in METRICS.items()}


def test_the_page_names_every_phase_and_every_field():
    page = (DEPLOY.parent / "docs/rollouts.md").read_text()
    assert [phase for phase in get_args(Phase) if f"`{phase}`" not in page] == []
    assert [name for name in FIELDS if f"| `{name}" not in page] == []


def test_the_chart_has_the_same_schema_and_the_same_rights():
    chart = DEPLOY / "helm/lading"
    assert (chart / "crds/modelrollouts.yaml").read_text() == (DEPLOY / "controller/crd.yaml").read_text()
    lines = re.findall(r"^ +- \{apiGroups.*\}$", (DEPLOY / "controller/rbac.yaml").read_text(), re.MULTILINE)
    assert (
        re.findall(r"^ +- \{apiGroups.*\}$", (chart / "templates/controller.yaml").read_text(), re.MULTILINE) == lines
    )
    assert len(lines) == 7
