"""What people do with MLflow's own client; run by the Python that has it, and not by that of the tests.

mlflow_client.py fill FOLDER                  register models at MLFLOW_TRACKING_URI; prints the ids of some
mlflow_client.py plain FOLDER NAME PASSWORD   only the simplest of them, and a user who may read nothing
mlflow_client.py download URI FOLDER …        what the client itself downloads
"""

import json
import logging
import sys
from pathlib import Path

import mlflow
from mlflow.artifacts import download_artifacts
from mlflow.server import get_app_client

logging.getLogger("mlflow").setLevel(logging.ERROR)


class Echo(mlflow.pyfunc.PythonModel):
    def predict(self, model_input: list[str]) -> list[str]:
        return model_input


def fill(folder: str) -> None:
    """The model iris: 1 in production, 2 in staging, 3 ready, 4 archived, 5 deleted; and plain, a folder of files."""
    client = mlflow.MlflowClient()
    register_plain(folder)
    ids = []
    with mlflow.start_run():
        for _ in range(5):
            info = mlflow.pyfunc.log_model(
                name="model",
                python_model=Echo(),
                artifacts={"data": folder},
                pip_requirements=["mlflow"],
                registered_model_name="iris",
            )
            ids.append(info.model_id)
    client.update_registered_model("iris", description="of flowers")
    client.set_registered_model_tag("iris", "owner", "me")
    client.set_model_version_tag("iris", "1", "team", "a")
    client.set_registered_model_alias("iris", "champion", "1")
    for version, stage in (("1", "Production"), ("2", "Staging"), ("4", "Archived")):
        client.transition_model_version_stage("iris", version, stage)
    client.delete_model_version("iris", "5")
    print(json.dumps(ids))


def register_plain(folder: str) -> None:
    client = mlflow.MlflowClient()
    mlflow.set_experiment("flowers")
    with mlflow.start_run() as run:
        mlflow.log_artifacts(folder, "plain")
    client.create_registered_model("plain")
    client.create_model_version("plain", f"{run.info.artifact_uri}/plain", run.info.run_id)


def plain(folder: str, name: str, password: str) -> None:
    register_plain(folder)
    get_app_client("basic-auth", tracking_uri=mlflow.get_tracking_uri()).create_user(name, password)


def download(*pairs: str) -> None:
    for uri, folder in zip(pairs[::2], pairs[1::2], strict=True):
        download_artifacts(uri, dst_path=str(Path(folder).absolute()))


if __name__ == "__main__":
    {"fill": fill, "plain": plain, "download": download}[sys.argv[1]](*sys.argv[2:])
