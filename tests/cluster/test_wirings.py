"""Every wiring of docs/in-the-cluster.md with a kubelet: the pods that KServe makes, real servers, a server that predicts."""

import base64
import hashlib
import json
import subprocess
from pathlib import Path

import pytest
import yaml

from cluster import images
from cluster.models import IRIS, LAW
from cluster.place import BUNDLE, SECCOMP, last_end, local_volume
from cluster.single_node import ADDRESS
from command_line import ENVIRONMENT, LADING
from fakes.fake_hub import FakeHub
from fakes.fake_kubeflow import API as REGISTRY
from fakes.fake_kubeflow import FakeKubeflow
from fakes.fake_oci import FakeRegistry, basic_only
from fakes.fake_s3 import FakeS3
from fakes.faulty_http import ALWAYS, Answer, FaultyServer, status
from fakes.git_server import GitServer
from fakes.kserve import KServe
from fakes.real_mlflow import mlflow_client
from fakes.real_s3 import ACCESS_KEY_ID, SECRET_ACCESS_KEY
from fakes.trees import write_tree

DEPLOY = Path(__file__).parents[2] / "deploy"
QUESTION = {"inputs": [{"name": "x", "shape": [2, 4], "datatype": "FP64", "data": [[1, 1, 1, 1], [0, 0, 0, 2]]}]}
PREDICTION = [10.0, 8.0]


def secret(name, data, **annotations):
    about = {"name": name, "annotations": {f"serving.kserve.io/{key}": value for key, value in annotations.items()}}
    return {"apiVersion": "v1", "kind": "Secret", "metadata": about, "stringData": data}


def account(name, *secrets, **about):
    references = [{"name": one["metadata"]["name"]} for one in secrets]
    return {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": name}, "secrets": references, **about}


KEYS = secret(
    "s3",
    {"AWS_ACCESS_KEY_ID": ACCESS_KEY_ID, "AWS_SECRET_ACCESS_KEY": SECRET_ACCESS_KEY},
    **{"s3-endpoint": "s3.minio.svc:9000", "s3-usehttps": "0", "s3-region": "us-east-1"},
)
MODELS = account("models", KEYS)
NOBODY = account("models")
STORED = secret(
    "storage-config",
    {
        "minio": json.dumps(
            {
                "type": "s3",
                "bucket": "models",
                "access_key_id": ACCESS_KEY_ID,
                "secret_access_key": SECRET_ACCESS_KEY,
                "endpoint_url": "http://s3.minio.svc:9000",
                "region": "us-east-1",
            }
        )
    },
)


def service(uri=None, **predictor):
    model = {"modelFormat": {"name": "sklearn"}} | ({"storageUri": uri} if uri else {})
    spec = {"predictor": {"serviceAccountName": "models", "securityContext": SECCOMP, "model": model, **predictor}}
    return {
        "apiVersion": "serving.kserve.io/v1beta1",
        "kind": "InferenceService",
        "metadata": {"name": "iris"},
        "spec": spec,
    }


def started(place, kserve, thing, *objects):
    """The pods of a service, once each is ready."""
    place.apply(*objects)
    pods = [place.start(name, template) for name, template in kserve.pods(thing).items()]
    return [place.ready(pod) for pod in pods]


def told(pod):
    """What the storage initializer said in the pod's status."""
    return json.loads(last_end(pod)["message"])


def digests(*trees):
    return {f"{root}/{path}": hashlib.sha256(data).hexdigest() for root, tree in trees for path, data in tree.items()}


def predicts(place, pod):
    answer = place.ask(pod, "/v2/models/iris/infer", QUESTION)
    return answer["outputs"][0]["data"]


def test_keys_of_a_service_account_against_a_server_that_checks_signatures(place, kserve, s3):
    (pod,) = started(place, kserve(KEYS, MODELS), service("s3://models/iris"), KEYS, MODELS)
    assert place.ask(pod, "/files") == digests(("/mnt/models", IRIS))
    assert predicts(place, pod) == PREDICTION
    said = told(pod)
    assert (said["uri"], said["files"], said["bytes"]) == ("s3://models/iris", 2, sum(map(len, IRIS.values())))


def test_the_container_has_no_privileges(place, kserve, s3, cluster):
    (pod,) = started(place, kserve(KEYS, MODELS), service("s3://models/iris"), KEYS, MODELS)
    owner = cluster.kubectl("exec", "-n", place.name, "iris-predictor", "--", "/usr/bin/python3", "-c", _WHO)
    assert owner.split() == ["1000", "0", "2", "1"]
    assert pod["spec"]["initContainers"][0]["securityContext"]["readOnlyRootFilesystem"]


# User id, effective capabilities, mode of seccomp, and that no privileges can be gained.
_WHO = """
status = dict(line.split(":", 1) for line in open("/proc/self/status"))
import os
print(os.getuid(), int(status["CapEff"], 16), status["Seccomp"].strip(), status["NoNewPrivs"].strip())
"""


def test_several_models_lie_below_their_common_parent(place, kserve, s3):
    uris = [
        {"uri": "s3://models/iris", "mountPath": "/mnt/models"},
        {"uri": "s3://models/law", "mountPath": "/mnt/adapters/law"},
    ]
    (pod,) = started(place, kserve(KEYS, MODELS), service(storageUris=uris), KEYS, MODELS)
    assert place.ask(pod, "/files") == digests(("/mnt/models", IRIS), ("/mnt/adapters/law", LAW))
    assert [one["uri"] for one in told(pod)] == ["s3://models/iris", "s3://models/law"]


def test_headers_for_one_host(place, kserve, server, publish):
    host = publish("files", place.name, 8000, server.url)
    server.put("/weights.json", IRIS["weights.json"])
    without = {"on": lambda request: request.headers.get("x-api-key") != "example", "times": ALWAYS}
    server.misbehave("/weights.json", status(401, **without))
    headers = secret("https", {"https-host": host, "headers": '{"x-api-key": "example"}'})
    models = account("models", headers)
    (pod,) = started(place, kserve(headers, models), service(f"http://{host}/weights.json"), headers, models)
    assert predicts(place, pod) == PREDICTION


def test_a_private_authority_that_kserve_mounts(place, kserve, cloud):
    server = cloud("files.example.com")
    server.put("/weights.json", IRIS["weights.json"])
    made = kserve(NOBODY, ca_bundle=BUNDLE)
    (pod,) = started(place, made, service("https://files.example.com/weights.json"), NOBODY)
    assert predicts(place, pod) == PREDICTION


def test_a_registry_asks_who_comes_by_the_pods_token(place, kserve, s3, server, publish, api):
    """It lets in whom the API server knows for its own audience: a TokenReview."""
    registry = FakeKubeflow(server)
    registry.register("iris", "v1", "s3://models/iris")
    reviewed = []
    known = server.routes[f"{REGISTRY}/"]

    def answer(request):
        token = request.headers.get("authorization", "").removeprefix("Bearer ")
        reviewed.append(api.bearer_of(token, "model-registry"))
        return known(request) if reviewed[-1] else Answer(401)

    for root in [root for root in server.routes if "model_registry" in root]:
        server.routes[root] = answer
    host = publish("model-registry", "kubeflow", 8080, server.url)
    made = kserve(KEYS, MODELS, folders=("overlays/registry",))
    for one in made.storage.values():
        for variable in one["spec"]["container"].get("env", []):
            if variable["name"] == "LADING_CONFIG_YAML":
                variable["value"] = variable["value"].replace(
                    "https://model-registry.kubeflow.svc:8443", f"http://{host}"
                )
    thing = service("token+model-registry://prod/iris/v1")
    projected = {"serviceAccountToken": {"path": "token", "audience": "model-registry", "expirationSeconds": 3600}}
    thing["spec"]["predictor"]["volumes"] = [{"name": "registry-token", "projected": {"sources": [projected]}}]
    (pod,) = started(place, made, thing, KEYS, MODELS)
    assert set(reviewed) == {f"system:serviceaccount:{place.name}:models"}
    assert place.ask(pod, "/files") == digests(("/mnt/models", IRIS))
    assert told(pod)["registry"] == "prod"


def test_the_pods_default_token_is_not_taken_by_that_registry(api, place):
    """What the API server gives every pod is for itself alone."""
    path = f"/api/v1/namespaces/{place.name}/serviceaccounts/default/token"
    token = api.post(path, {"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": {}})
    assert api.bearer_of(token["status"]["token"], "model-registry") is None


# ---- other origins, by variables of the ClusterStorageContainer -------------------------------------


@pytest.fixture
def with_variables(place, storage):
    """KServe with these variables in each ClusterStorageContainer."""

    def with_variables(*objects, **variables):
        containers = storage()
        for one in containers:
            own = [{"name": name, "value": value} for name, value in variables.items()]
            one["spec"]["container"]["env"] = own
        return KServe(containers, list(objects), image=images.LADING, server=place.model_server())

    return with_variables


def test_a_private_repository_of_a_hub(place, with_variables, server, publish):
    hub = FakeHub(server)
    hub.repository("example/iris", private=True, readers=frozenset({"hf_example"})).commit(IRIS)
    login = secret("hf", {"HF_TOKEN": "hf_example"})
    models = account("models", login)
    host = publish("hub", place.name, 80, server.url)
    hub.next_host = f"http://{host}"
    made = with_variables(login, models, HF_ENDPOINT=f"http://{host}")
    (pod,) = started(place, made, service("hf://example/iris:main"), login, models)
    assert predicts(place, pod) == PREDICTION


@pytest.fixture(scope="session")
def plain_of_mlflow(cluster, mlflow, tmp_path_factory):
    """MLflow's own client has registered version 1 of plain."""
    model = write_tree(tmp_path_factory.mktemp("mlflow") / "model", IRIS)
    mlflow_client(mlflow.url, "register", str(model), within=cluster.client)


def test_a_version_of_mlflow(place, with_variables, mlflow, plain_of_mlflow):
    made = with_variables(NOBODY, MLFLOW_TRACKING_URI=f"http://{mlflow.host}")
    (pod,) = started(place, made, service("models:/plain/1"), NOBODY)
    assert predicts(place, pod) == PREDICTION


def test_a_repository_of_git(place, with_variables, server, publish, tmp_path):
    repository = GitServer(server, tmp_path).create()
    repository.commit(IRIS)
    host = publish("git", place.name, 80, server.url)
    (pod,) = started(place, with_variables(NOBODY), service(f"git+http://{host}/git/model.git"), NOBODY)
    assert predicts(place, pod) == PREDICTION


def test_a_proxy(place, kserve, server, publish):
    """deploy/overlays/proxy: it is asked for a host that nobody else knows."""
    host = publish("proxy", place.name, 3128, server.url)
    server.put("/weights.json", IRIS["weights.json"])
    made = kserve(KEYS, MODELS)
    (patch,) = yaml.safe_load((DEPLOY / "overlays/proxy/kustomization.yaml").read_text())["patches"]
    variables = [one["value"] for one in yaml.safe_load(patch["patch"])]
    for one in variables:
        one["value"] = one["value"].replace("proxy.example.com:3128", host)
    for one in made.storage.values():
        one["spec"]["container"].setdefault("env", []).extend(variables)
    (pod,) = started(place, made, service("http://models.example.com/weights.json"), KEYS, MODELS)
    assert predicts(place, pod) == PREDICTION
    assert {request.target for request in server.requests} == {"http://models.example.com/weights.json"}


def test_the_image_from_a_private_registry(place, kserve, s3, cluster, tmp_path):
    """`imagePullSecrets` of the ServiceAccount: a ClusterStorageContainer has none."""
    with cluster.within():
        server = FaultyServer(host=ADDRESS, address=ADDRESS)
    with server:
        registry = FakeRegistry(server, "team/lading")
        registry.authorize = basic_only
        images.push(registry, tmp_path / "image")
        cluster.trust_plain_http(registry.host)
        login = base64.b64encode(b"user:password").decode()
        pull = secret("pull", {".dockerconfigjson": json.dumps({"auths": {registry.host: {"auth": login}}})})
        pull["type"] = "kubernetes.io/dockerconfigjson"
        models = account("models", KEYS, imagePullSecrets=[{"name": "pull"}])
        made = kserve(KEYS, models)
        for one in made.storage.values():
            one["spec"]["container"]["image"] = f"{registry.host}/team/lading:1"
        (pod,) = started(place, made, service("s3://models/iris"), KEYS, pull, models)
        assert predicts(place, pod) == PREDICTION
        assert pod["status"]["initContainerStatuses"][0]["imageID"].startswith(f"{registry.host}/team/lading@sha256:")


# ---- what KServe starts from its ConfigMap, with no security context -------------------------------


def test_a_storage_key(open_place, s3):
    thing = service()
    thing["spec"]["predictor"]["model"]["storage"] = {"key": "minio", "path": "iris"}
    kserve = KServe([], [STORED, MODELS], image=images.LADING, server=open_place.model_server())
    (pod,) = started(open_place, kserve, thing, KEYS, MODELS, STORED)
    assert predicts(open_place, pod) == PREDICTION


def test_oci_fetch_with_a_pull_secret(open_place, cluster, publish, tmp_path):
    with cluster.within():
        server = FaultyServer(host=ADDRESS, address=ADDRESS)
    with server:
        registry = FakeRegistry(server, "models/iris")
        registry.authorize = basic_only
        registry.put_files(IRIS)
        host = publish("registry", open_place.name, 5000, server.url)
        login = base64.b64encode(b"user:password").decode()
        pull = secret("pull", {".dockerconfigjson": json.dumps({"auths": {host: {"auth": login}}})})
        pull["type"] = "kubernetes.io/dockerconfigjson"
        kserve = KServe([], [pull], image=images.LADING, server=open_place.model_server(), insecure_oci=True)
        # KServe mounts the Secret for its owner alone, and a group is what others may have.
        about = {"imagePullSecrets": [{"name": "pull"}], "securityContext": {**SECCOMP, "fsGroup": 1000}}
        thing = service(f"oci+fetch://{host}/models/iris:latest", **about)
        (pod,) = started(open_place, kserve, thing, NOBODY, pull)
        assert predicts(open_place, pod) == PREDICTION


def llm(**spec):
    template = {"serviceAccountName": "models", "containers": [{"name": "main"}]}
    spec = {"model": {"uri": "s3://models/iris", "name": "m"}, "template": template, **spec}
    return {
        "apiVersion": "serving.kserve.io/v1alpha2",
        "kind": "LLMInferenceService",
        "metadata": {"name": "llm"},
        "spec": spec,
    }


@pytest.fixture
def llms(open_place, s3):
    """KServe's LLMInferenceServices, whose server is ours."""

    def llms(thing, image=images.LADING):
        for workload in (thing["spec"], thing["spec"].get("prefill")):
            if workload:
                (container,) = workload["template"]["containers"]
                container |= open_place.model_server()
        kserve = KServe([], [KEYS, MODELS], image=image)
        return started(open_place, kserve, thing, KEYS, MODELS, account("llm-kserve", KEYS))

    return llms


def test_an_llm(open_place, llms):
    (pod,) = llms(llm())
    assert open_place.ask(pod, "/files") == digests(("/mnt/models", IRIS))


def test_an_llm_with_prefill_has_the_model_in_both_pods(open_place, llms):
    prefill = {"template": {"serviceAccountName": "models", "containers": [{"name": "main"}]}}
    for pod in llms(llm(prefill=prefill)):
        assert open_place.ask(pod, "/files") == digests(("/mnt/models", IRIS))


def test_an_llm_with_an_adapter(open_place, llms):
    adapters = {"adapters": [{"name": "law", "uri": "s3://models/law"}]}
    (pod,) = llms(llm(model={"uri": "s3://models/iris", "name": "m", "lora": adapters}))
    assert open_place.ask(pod, "/files") == digests(("/mnt/models", IRIS), ("/mnt/lora/law", LAW))


def test_an_llm_gets_image_and_variables_by_its_own_init_container(open_place, llms):
    """Since KServe 0.20: the way to lading's settings, as no ClusterStorageContainer is for it."""
    path = "metadata.annotations['models.example.com/only']"
    variables = [{"name": "STORAGE_ALLOW_PATTERNS", "valueFrom": {"fieldRef": {"fieldPath": path}}}]
    template = {
        "serviceAccountName": "models",
        "containers": [{"name": "main"}],
        "initContainers": [{"name": "storage-initializer", "image": images.LADING, "env": variables}],
    }
    thing = llm(template=template, annotations={"models.example.com/only": "weights.json"})
    (pod,) = llms(thing, image="image-not-set.invalid/of-the-configmap")
    assert open_place.ask(pod, "/files").keys() == {"/mnt/models/weights.json"}
    assert pod["metadata"]["annotations"] == {"models.example.com/only": "weights.json"}


def test_an_llm_without_kserves_initializer_brings_what_that_refuses(open_place, llms, server, publish):
    """Since KServe 0.17: `storageInitializer.enabled: false`, and lading as an init container of another name."""
    host = publish("files", open_place.name, 8000, server.url)
    server.put("/weights.json", IRIS["weights.json"])
    mount = {"name": "model", "mountPath": "/mnt/models"}
    arguments = [f"http://{host}/weights.json", "/mnt/models"]
    template = {
        "serviceAccountName": "models",
        "containers": [{"name": "main", "volumeMounts": [{**mount, "readOnly": True}]}],
        "initContainers": [{"name": "lading", "image": images.LADING, "args": arguments, "volumeMounts": [mount]}],
        "volumes": [{"name": "model", "emptyDir": {}}],
    }
    (pod,) = llms(llm(template=template, storageInitializer={"enabled": False}))
    assert open_place.ask(pod, "/files").keys() == {"/mnt/models/weights.json"}


# ---- one version for all pods ----------------------------------------------------------------------


@pytest.fixture
def pinned(server, publish, open_place, cluster, tmp_path):
    """A bucket, the Secret and ServiceAccount for it, and the text of a lock file that `lading lock` wrote for its model."""
    bucket = FakeS3(server)
    for path, data in IRIS.items():
        bucket.put(f"iris/{path}", data)
    host = publish("s3", open_place.name, 9000, server.url)
    login = secret("s3", KEYS["stringData"], **{"s3-endpoint": host, "s3-usehttps": "0", "s3-region": "us-east-1"})
    lock = tmp_path / "lading.lock"
    variables = KEYS["stringData"] | {"AWS_ENDPOINT_URL": server.url, "AWS_DEFAULT_REGION": "us-east-1"}
    command = cluster.client(*LADING, "lock", "s3://models/iris", "--output", lock)
    subprocess.run(command, env={**ENVIRONMENT, **variables}, check=True)
    return bucket, (login, account("models", login)), lock.read_text()


def of_an_inference_service(lock):
    return service("s3://models/iris", annotations={"lading.dev/lock": lock})


def of_an_llm(lock):
    """With what deploy/examples/llm-inference-service.yaml has for it."""
    example = yaml.safe_load((DEPLOY / "examples/llm-inference-service.yaml").read_text())
    (init,) = example["spec"]["template"]["initContainers"]
    (variable,) = (one for one in init["env"] if one["name"] == "LADING_LOCK_TEXT")
    inits = [{"name": "storage-initializer", "env": [variable]}]
    template = {"serviceAccountName": "models", "containers": [{"name": "main"}], "initContainers": inits}
    return llm(template=template, annotations={"lading.dev/lock": lock})


@pytest.mark.parametrize("of", [of_an_inference_service, of_an_llm])
def test_a_pin_in_an_annotation_is_the_version_of_every_pod(open_place, storage, pinned, of):
    bucket, objects, lock = pinned
    thing = of(lock)
    for container in thing["spec"].get("template", {}).get("containers", []):
        container |= open_place.model_server()
    open_place.apply(*objects)
    made = KServe(storage(), list(objects), image=images.LADING, server=open_place.model_server())
    (template,) = made.pods(thing).values()
    pod = open_place.ready(open_place.start("first", template))
    assert open_place.ask(pod, "/files") == digests(("/mnt/models", IRIS))
    # A pod that starts later gets the same version or none.
    bucket.put("iris/weights.json", b"[0.0, 0.0, 0.0, 0.0]")
    ended = open_place.failed(open_place.start("second", template))
    assert (ended["exitCode"], ended["message"].partition(":")[0]) == (6, "error[integrity]")


# ---- a cache of models on nodes -------------------------------------------------------------------


def test_a_download_job_fills_the_folder_of_a_node_and_pods_read_it(open_place, s3, storage, api, cluster):
    folder = f"/var/lib/{open_place.name}"
    cluster.run("install", "-d", "-m", "0777", folder)
    stored = secret("storage-config", {"models": STORED["stringData"]["minio"]})
    cache = {
        "apiVersion": "serving.kserve.io/v1alpha1",
        "kind": "LocalModelCache",
        "metadata": {"name": "llm"},
        "spec": {
            "sourceModelUri": "s3://models/iris",
            "modelSize": "1Gi",
            "nodeGroups": ["gpu"],
            "storage": {"key": "models"},
        },
    }
    open_place.apply(stored, KEYS, MODELS, *local_volume(open_place.name, "llm-gpu", folder))
    kserve = KServe(storage(), [cache], image=images.LADING)
    job = {"apiVersion": "batch/v1", "kind": "Job", "metadata": {"name": "llm-node1", "namespace": open_place.name}}
    api.apply({**job, "spec": kserve.job(cache, "node1")})
    api.until(job, lambda thing: thing.get("status", {}).get("succeeded"))
    main = {"name": "main", **open_place.model_server()}
    template = {"serviceAccountName": "models", "containers": [main]}
    pods = kserve.pods(llm(template=template))
    pod = open_place.ready(open_place.start("llm-kserve", pods["llm-kserve"]))
    assert open_place.ask(pod, "/files") == digests(("/mnt/models", IRIS))
