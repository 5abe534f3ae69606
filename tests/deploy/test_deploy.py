"""The manifests in deploy/, as KServe takes them.  What kustomize and helm make of them: tests/real/test_manifests.py."""

import json
import posixpath
import re
from pathlib import Path

import jsonschema
import pytest
import yaml

from fakes.kserve import init_container, job_container, matching, merged, validate
from lading.model.reference import SCHEMES
from lading.settings.agent import Prefetch, read_agent
from lading.settings.families import SCHEMES as READ
from lading.settings.settings import Settings
from lading.settings.store import StoreSettings
from lading.sources.schemes import _SPELLINGS

DEPLOY = Path(__file__).parents[2] / "deploy"
BASE = [
    yaml.safe_load((DEPLOY / f"base/{name}.yaml").read_text()) for name in ("default", "model-registry", "local-model")
]
BY_NAME = {one["metadata"]["name"]: one for one in BASE}
# Each beside the base, for the URIs with its prefix.
CHOSEN = {
    "store+": yaml.safe_load((DEPLOY / "overlays/store/store.yaml").read_text()),
    "token+": yaml.safe_load((DEPLOY / "overlays/registry/registry.yaml").read_text()),
}
EXAMPLES = [thing for path in sorted((DEPLOY / "examples").iterdir()) for thing in yaml.safe_load_all(path.read_text())]
LOCK = {
    "name": "LADING_LOCK_TEXT",
    "valueFrom": {"fieldRef": {"fieldPath": "metadata.annotations['lading.dev/lock']"}},
}
SERVICES = {
    f"{thing['metadata']['name']}-{number}": thing
    for number, thing in enumerate(EXAMPLES)
    if thing["kind"] == "InferenceService"
}


def example(name):
    return yaml.safe_load((DEPLOY / f"examples/{name}.yaml").read_text())


@pytest.mark.parametrize(
    "thing", [*BASE, *CHOSEN.values(), example("local-model-cache")], ids=lambda thing: thing["metadata"]["name"]
)
def test_kserve_takes_it(thing):
    validate(thing)


def test_what_kserve_does_not_know_is_seen():
    wrong = {**BASE[0], "spec": {**BASE[0]["spec"], "volumes": []}}
    with pytest.raises(jsonschema.ValidationError, match="'volumes' was unexpected"):
        validate(wrong)


@pytest.mark.parametrize("one", [*BASE, *CHOSEN.values()], ids=lambda one: one["metadata"]["name"])
def test_the_container_is_what_kserve_expects_and_what_a_restricted_namespace_takes(one):
    container = one["spec"]["container"]
    assert container["name"] == "storage-initializer"
    assert not {"args", "command"} & container.keys()
    security = container["securityContext"]
    assert security["capabilities"] == {"drop": ["ALL"]}
    assert security["seccompProfile"] == {"type": "RuntimeDefault"}
    assert (security["allowPrivilegeEscalation"], security["readOnlyRootFilesystem"]) == (False, True)
    # A user of its own would be in the way of Istio's and OpenShift's.
    assert security["runAsNonRoot"]
    assert "runAsUser" not in security


URIS = [
    *(
        f"{scheme}://a/b"
        for scheme in sorted(READ.keys() | _SPELLINGS)
        if scheme and not scheme.startswith(("oci", "file", "mlflow", "runs"))
    ),
    *(f"{scheme}://a/b" for scheme in SCHEMES if scheme != "models"),
    "models:/a/1",
    "runs:/a/model",
    "https://account.blob.core.windows.net/container/model",
    "https://github.com/owner/model.git",
]


def test_no_manifest_names_an_image_that_a_stranger_could_offer():
    for path in DEPLOY.rglob("*.yaml"):
        for image in re.findall(r"^ *image: (\S*lading\S*)$", path.read_text(), re.MULTILINE):
            # RFC 2606: resolves nowhere.
            assert image == "image-not-set.invalid/lading", path


def test_no_limit_of_ephemeral_storage_evicts_a_pod_with_a_large_model():
    for one in (*BASE, *CHOSEN.values()):
        assert "ephemeral-storage" not in one["spec"]["container"]["resources"]["limits"]


@pytest.mark.parametrize("uri", URIS)
def test_for_every_uri_there_is_one_container_and_no_choice(uri):
    assert len(matching(BASE, uri)) == 1
    assert matching(BASE, uri, "localModelDownloadJob") == ["local-model"]


@pytest.mark.parametrize("prefix", CHOSEN)
@pytest.mark.parametrize("uri", [*URIS, "oci://registry/model"])
def test_a_container_that_mounts_a_volume_is_chosen_by_its_prefix_alone(prefix, uri):
    everything = [*BASE, *CHOSEN.values()]
    # Whoever does not ask for it has what the base has, and needs no volume.
    assert matching(everything, uri) == matching(BASE, uri)
    assert matching(everything, prefix + uri) == [CHOSEN[prefix]["metadata"]["name"]]


def test_nothing_that_applies_to_all_services_mounts_what_a_pod_may_lack():
    for one in BASE:
        assert "volumeMounts" not in one["spec"]["container"]
    for path in (DEPLOY / "overlays").glob("*/kustomization.yaml"):
        for patch in yaml.safe_load(path.read_text()).get("patches", []):
            assert "volumeMounts" not in patch["patch"]


@pytest.mark.parametrize("service", SERVICES.values(), ids=SERVICES)
def test_an_example_meets_the_restricted_standard_and_has_every_volume_that_is_mounted(service):
    # KServe's own container sets all the others itself.
    predictor = service["spec"]["predictor"]
    assert predictor["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    uri = predictor["model"].get("storageUri") or predictor["storageUris"][0]["uri"]
    everything = {one["metadata"]["name"]: one for one in (*BASE, *CHOSEN.values())}
    (name,) = matching(list(everything.values()), uri)
    mounts = everything[name]["spec"]["container"].get("volumeMounts", [])
    assert {mount["name"] for mount in mounts} <= {volume["name"] for volume in predictor.get("volumes", [])}


def test_names_and_places_have_different_containers():
    assert matching(BASE, "s3://bucket/model") == ["default"]
    assert matching(BASE, "model-registry://iris") == ["model-registry-storage-initializer"]
    assert matching(BASE, "models:/iris/1") == ["model-registry-storage-initializer"]
    # KServe's own business.
    assert matching(BASE, "oci://registry/model") == matching(BASE, "pvc://claim/model") == []


def test_the_container_of_an_inference_service_has_what_both_sides_say():
    keys = {"name": "AWS_ACCESS_KEY_ID", "valueFrom": {"secretKeyRef": {"name": "s3", "key": "AWS_ACCESS_KEY_ID"}}}
    container = init_container(BY_NAME["default"], example("inference-service"), (keys,))
    assert container["image"] == "image-not-set.invalid/lading"
    assert container["args"] == ["s3://models/iris", "/mnt/models"]
    assert container["env"][:3] == [{"name": "LADING_VERIFY", "value": "auto"}, LOCK, keys]
    assert {"HF_XET_HIGH_PERFORMANCE"} <= {one["name"] for one in container["env"]}
    assert container["volumeMounts"] == [{"name": "kserve-provision-location", "mountPath": "/mnt/models"}]
    assert container["securityContext"]["readOnlyRootFilesystem"]
    assert container["terminationMessagePolicy"] == "FallbackToLogsOnError"


def test_several_models_lie_below_one_volume():
    container = init_container(BY_NAME["default"], example("several-models"))
    assert container["args"] == ["s3://models/llm", "/mnt/models", "s3://models/adapters/law", "/mnt/adapters/law"]
    assert container["volumeMounts"] == [{"name": "mnt", "mountPath": "/mnt"}]
    assert BY_NAME["default"]["spec"]["supportsMultiModelDownload"]


def test_every_storage_initializer_reads_the_pins_of_its_pod_and_no_job_does():
    (init,) = example("llm-inference-service")["spec"]["template"]["initContainers"]
    jobs = [one for one in BASE if one["spec"]["workloadType"] == "localModelDownloadJob"]
    others = [one["spec"]["container"] for one in (*BASE, *CHOSEN.values()) if one not in jobs]
    assert all(LOCK in container["env"] for container in (init, *others))
    assert [LOCK in one["spec"]["container"]["env"] for one in jobs] == [False]


def test_a_download_job_is_told_to_remove_what_others_left():
    container = job_container(BY_NAME["local-model"], example("local-model-cache"))
    assert container["args"] == ["s3://models/llm", "/mnt/models"]
    assert re.fullmatch(r"models/[0-9a-f]{16}", container["volumeMounts"][0]["subPath"])
    assert container["env"] == [{"name": "LADING_REMOVE_STRAYS", "value": "true"}]
    # For which KServe sets none.
    assert container["resources"]["limits"] == {"cpu": "1", "memory": "1Gi"}


def test_a_strategic_merge_takes_items_by_their_keys_and_replaces_lists_without_any():
    base = {
        "args": ["a"],
        "env": [{"name": "A", "value": "1"}, {"name": "B", "value": "1"}],
        "resources": {"x": {"y": 1}},
    }
    patch = {
        "args": ["b"],
        "env": [{"name": "B", "value": "2"}, {"name": "C", "value": "2"}],
        "resources": {"x": {"z": 2}},
    }
    assert merged(base, patch) == {
        "args": ["b"],
        "env": [{"name": "A", "value": "1"}, {"name": "B", "value": "2"}, {"name": "C", "value": "2"}],
        "resources": {"x": {"y": 1, "z": 2}},
    }


def test_a_pod_with_the_stores_volume_is_restricted_and_cannot_write_there():
    volume, claim, service = yaml.safe_load_all((DEPLOY / "examples/store.yaml").read_text())
    (mounted,) = service["spec"]["predictor"]["volumes"]
    assert mounted["persistentVolumeClaim"] == {"claimName": claim["metadata"]["name"], "readOnly": True}
    assert volume["spec"]["claimRef"] == {key: claim["metadata"][key] for key in ("namespace", "name")}
    assert claim["metadata"]["namespace"] == service["metadata"]["namespace"]
    for key in ("storageClassName", "accessModes"):
        assert volume["spec"][key] == claim["spec"][key]
    daemon = yaml.safe_load((DEPLOY / "agent/daemonset.yaml").read_text())
    folders = [one["hostPath"]["path"] for one in daemon["spec"]["template"]["spec"]["volumes"] if "hostPath" in one]
    assert folders == [volume["spec"]["local"]["path"]]


# ---- the agent --------------------------------------------------------------------------------


def agent_settings(text, tmp_path):
    (tmp_path / "lading.yaml").write_text(text)
    return read_agent(Settings.load({"LADING_CONFIG": str(tmp_path / "lading.yaml")}))


def test_the_agents_configuration_is_what_lading_reads_and_its_probes_reach_it(tmp_path):
    own = agent_settings((DEPLOY / "agent/lading.yaml").read_text(), tmp_path)
    daemon = yaml.safe_load((DEPLOY / "agent/daemonset.yaml").read_text())
    pod = daemon["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    assert container["ports"][0]["containerPort"] == own.port
    assert own.listen == "0.0.0.0"
    mounts = {mount["mountPath"]: mount["name"] for mount in container["volumeMounts"]}
    assert mounts.keys() == {"/etc/lading", "/var/lib/lading", posixpath.dirname(own.token_file)}
    assert not any(delivery.destination for delivery in own.deliveries)
    assert {volume["name"] for volume in pod["volumes"]} == set(mounts.values())
    assert container["securityContext"]["readOnlyRootFilesystem"]
    assert container["command"][1:] == ["agent"]


def test_the_agents_of_rollouts_may_only_read_them_and_have_a_store(tmp_path):
    own = agent_settings((DEPLOY / "agent-prefetch/lading.yaml").read_text(), tmp_path)
    assert own.prefetch == Prefetch(namespace="models")
    role, binding = yaml.safe_load_all((DEPLOY / "agent-prefetch/rbac.yaml").read_text())
    assert role["rules"] == [{"apiGroups": ["lading.dev"], "resources": ["modelrollouts"], "verbs": ["list", "watch"]}]
    daemon = yaml.safe_load((DEPLOY / "agent/daemonset.yaml").read_text())
    assert binding["subjects"][0]["name"] == daemon["spec"]["template"]["spec"]["serviceAccountName"]


def test_no_probe_that_restarts_the_agent_waits_for_a_model():
    daemon = yaml.safe_load((DEPLOY / "agent/daemonset.yaml").read_text())
    (container,) = daemon["spec"]["template"]["spec"]["containers"]
    for name in ("startupProbe", "livenessProbe"):
        assert container[name]["httpGet"]["path"] == "/healthz"
        assert container[name]["timeoutSeconds"] > 1


@pytest.mark.parametrize("store", [{}, yaml.safe_load((DEPLOY / "agent/lading.yaml").read_text())["store"]])
def test_the_store_evicts_before_the_kubelet_does(store):
    marks = StoreSettings()._replace(**store)
    # Its defaults: images go from 85 % on, pods at 90 %.
    assert float(marks.low.rstrip("%")) < float(marks.high.rstrip("%")) < 85


def test_only_prometheus_is_let_in_by_others_than_the_node():
    policy = yaml.safe_load((DEPLOY / "agent/network-policy.yaml").read_text())["spec"]
    daemon = yaml.safe_load((DEPLOY / "agent/daemonset.yaml").read_text())["spec"]
    assert policy["podSelector"] == {"matchLabels": daemon["template"]["metadata"]["labels"]}
    (rule,) = policy["ingress"]
    (who,) = rule["from"]
    assert {"namespaceSelector", "podSelector"} == who.keys()


def test_the_sidecar_keeps_the_model_where_its_server_reads(tmp_path):
    configuration, pod = yaml.safe_load_all((DEPLOY / "examples/agent-sidecar.yaml").read_text())
    own = agent_settings(configuration["data"]["lading.yaml"], tmp_path)
    (delivery,) = own.deliveries
    server, agent = pod["spec"]["containers"]
    assert delivery.destination == f"{server['volumeMounts'][0]['mountPath']}/{delivery.on_change.model}"
    assert server["volumeMounts"][0]["name"] == agent["volumeMounts"][0]["name"]
    for container in (server, agent):
        assert container["securityContext"]["capabilities"] == {"drop": ["ALL"]}
        assert container["resources"]["limits"].keys() >= {"memory", "ephemeral-storage"}
    assert agent["image"] == "image-not-set.invalid/lading"
    assert pod["spec"]["automountServiceAccountToken"] is False
    # Loopback only, as it is by default.
    assert own.listen == "127.0.0.1"
    assert agent["readinessProbe"]["exec"]["command"] == ["/usr/bin/lading", "health"]


def test_the_schema_of_the_chart_has_the_values_that_there_are():
    chart = DEPLOY / "helm/lading"
    values = yaml.safe_load((chart / "values.yaml").read_text())
    schema = json.loads((chart / "values.schema.json").read_text())["properties"]
    # Helm gives every chart the values that are called global.
    assert schema.keys() - {"global"} == values.keys()
    assert all(schema[key]["properties"].keys() == values[key].keys() for key in ("image", "controller"))
    of_a_container = schema["containers"]["additionalProperties"]["properties"].keys()
    assert of_a_container == {key for container in values["containers"].values() for key in container}
