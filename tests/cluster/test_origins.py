"""The clouds, as a pod finds them: by their own names and over TLS, with the identities that KServe and webhooks wire."""

import json
from dataclasses import replace

import pytest
import yaml

from cluster.models import IRIS
from cluster.place import BUNDLE
from cluster.test_wirings import DEPLOY, PREDICTION, account, predicts, secret, service, started
from fakes.fake_azure import KEY, TENANT, FakeAzure, FakeEntra
from fakes.fake_gcs import FakeGcs
from fakes.fake_google import FakeGoogle
from fakes.fake_s3 import FakeS3
from fakes.fake_sts import sts
from fakes.fake_webhdfs import FakeWebHdfs

BLOBS = "lading.blob.core.windows.net"
ENTRA = "login.microsoftonline.com"


def fill(origin, folder="iris"):
    for path, data in IRIS.items():
        origin.put(f"{folder}/{path}", data)
    return origin


def with_token(template, name, audience, folder, file, **variables):
    """What a webhook of a cloud adds to each container: the ServiceAccount's token for the cloud, and where it is."""
    source = {"serviceAccountToken": {"path": file, "audience": audience, "expirationSeconds": 3600}}
    spec = template["spec"]
    spec["volumes"].append({"name": name, "projected": {"sources": [source]}})
    for container in (*spec["initContainers"], *spec["containers"]):
        container["volumeMounts"].append({"name": name, "mountPath": folder, "readOnly": True})
        own = [{"name": key, "value": value} for key, value in variables.items()]
        container["env"] = [*container.get("env", []), *own]


def ready(place, kserve, thing, *objects, change=lambda template: None):
    """The pod of a service in a namespace with ``objects``."""
    place.apply(*objects)
    (template,) = kserve(*objects, ca_bundle=BUNDLE).pods(thing).values()
    change(template)
    return place.ready(place.start("iris-predictor", template))


def test_a_role_of_aws_by_the_pods_token(place, kserve, cloud, api):
    """deploy/overlays/irsa: STS believes whom the API server knows, and S3 whom STS gave keys."""
    server = cloud("sts.eu-central-1.amazonaws.com", "models.s3.eu-central-1.amazonaws.com")
    models = yaml.safe_load((DEPLOY / "overlays/irsa/service-account.yaml").read_text())
    role = models["metadata"]["annotations"]["eks.amazonaws.com/role-arn"]
    came = []

    def believes(token):
        came.append(api.bearer_of(token, "sts.amazonaws.com"))
        return came[-1] is not None

    bucket = fill(FakeS3(server))
    bucket.refuse = lambda request: (
        None if request.headers.get("x-amz-security-token") == f"ST of {role}" else "AccessDenied"
    )
    exchange = sts(believes=believes)

    def answer(request):
        if request.headers["host"].startswith("sts."):
            return exchange(request)
        return bucket.answer(replace(request, target=f"/models{request.target}"))

    server.routes.clear()
    server.routes["/"] = answer
    folder = "/var/run/secrets/eks.amazonaws.com/serviceaccount"
    variables = {"AWS_ROLE_ARN": role, "AWS_WEB_IDENTITY_TOKEN_FILE": f"{folder}/token"}

    def as_eks_does(template):
        with_token(template, "aws-iam-token", "sts.amazonaws.com", folder, "token", **variables)

    pod = ready(place, kserve, service("s3://models/iris"), models, change=as_eks_does)
    assert predicts(place, pod) == PREDICTION
    assert came == [f"system:serviceaccount:{place.name}:models"]


def test_a_key_of_a_google_service_account(place, kserve, cloud):
    server = cloud("oauth2.googleapis.com", "storage.googleapis.com")
    google, bucket = FakeGoogle(server), fill(FakeGcs(server))
    server.routes["/token"] = server.routes["/oauth/token"]

    def refuse(request):
        token = request.headers.get("authorization", "").removeprefix("Bearer ")
        return None if token in google.granted else (401, "authError")

    bucket.refuse = refuse
    key = json.dumps(google.document("service_account", token_uri="https://oauth2.googleapis.com/token"))
    login = secret("gcs", {"gcloud-application-credentials.json": key})
    pod = ready(place, kserve, service("gs://models/iris"), login, account("models", login))
    assert predicts(place, pod) == PREDICTION
    assert [grant["kind"] for grant in google.granted.values()] == ["key"]


@pytest.mark.parametrize(
    "login",
    [
        {"AZURE_STORAGE_ACCESS_KEY": KEY},
        {
            "AZURE_TENANT_ID": TENANT,
            "AZURE_CLIENT_ID": "reader",
            "AZURE_SUBSCRIPTION_ID": "none",
            "AZURE_CLIENT_SECRET": "s3cret~of.a-principal",
        },
    ],
    ids=["key", "principal"],
)
def test_a_secret_of_azure(place, kserve, cloud, login):
    server = cloud(BLOBS, ENTRA)
    FakeEntra(server, fill(FakeAzure(server)))
    login = secret("azure", login)
    pod = ready(place, kserve, service(f"https://{BLOBS}/models/iris"), login, account("models", login))
    assert predicts(place, pod) == PREDICTION


class Believed:
    """Assertions that the API server knows as tokens for Entra."""

    def __init__(self, api):
        self._api, self.came = api, []

    def __contains__(self, token):
        self.came.append(self._api.bearer_of(token or "", "api://AzureADTokenExchange"))
        return self.came[-1] is not None


def test_a_workload_identity_of_azure_by_the_pods_token(place, kserve, cloud, api):
    server = cloud(BLOBS, ENTRA)
    entra = FakeEntra(server, fill(FakeAzure(server)))
    entra.assertions = Believed(api)
    folder, file = "/var/run/secrets/azure/tokens", "azure-identity-token"
    variables = {
        "AZURE_CLIENT_ID": "reader",
        "AZURE_TENANT_ID": TENANT,
        "AZURE_AUTHORITY_HOST": f"https://{ENTRA}/",
        "AZURE_FEDERATED_TOKEN_FILE": f"{folder}/{file}",
    }

    def as_its_webhook_does(template):
        with_token(template, file, "api://AzureADTokenExchange", folder, file, **variables)

    thing = service(f"https://{BLOBS}/models/iris")
    pod = ready(place, kserve, thing, account("models"), change=as_its_webhook_does)
    assert predicts(place, pod) == PREDICTION
    assert entra.assertions.came == [f"system:serviceaccount:{place.name}:models"]


def test_the_files_of_a_secret_for_hdfs(place, kserve, server, publish):
    files = fill(FakeWebHdfs(server), "/user/models/iris")
    files.refuse = lambda request: None if request.headers.get("x-gateway") == "se-cret" else "SecurityException"
    login = secret(
        "hdfs",
        {
            "HDFS_NAMENODE": f"http://{publish('namenode', place.name, 9870, server.url)}",
            "HDFS_ROOTPATH": "/user/models",
            "HEADERS": json.dumps({"x-gateway": "se-cret"}),
        },
    )
    models = account("models", login)
    (pod,) = started(place, kserve(login, models), service("hdfs://iris"), login, models)
    assert predicts(place, pod) == PREDICTION
