"""What people do with MLflow's own client; run by the Python that has it, and not by that of the tests.

mlflow_client.py fill FOLDER                  register models at MLFLOW_TRACKING_URI; prints the ids of some
mlflow_client.py register FOLDER              only the simplest of them
mlflow_client.py plain FOLDER NAME PASSWORD   the same, and a user who may read nothing
mlflow_client.py download URI FOLDER …        what the client itself downloads; prints where it then is
"""

import json
import logging
import sys

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
    print(json.dumps([*ids, *register_runs(folder)]))


def register_runs(folder: str) -> list[str]:
    """The model by-run, whose versions are said to be at runs:/…; the ids of the run and of its logged model.

    1 is a folder of artifacts, 2 a logged model, 3 a folder of either kind, 4 version 1, and 5 the logged model.
    """
    client = mlflow.MlflowClient()
    with mlflow.start_run() as run:
        mlflow.log_artifacts(folder, "deep/some files")
        info = mlflow.pyfunc.log_model(name="model", python_model=Echo(), pip_requirements=["mlflow"])
        mlflow.pyfunc.log_model(name="both", python_model=Echo(), pip_requirements=["mlflow"])
        mlflow.log_text("more", "both/more.txt")
    client.create_registered_model("by-run")
    run_id = run.info.run_id
    for path in ("deep/some files", "model", "both"):
        client.create_model_version("by-run", f"runs:/{run_id}/{path}", run_id)
    client.create_model_version("by-run", "models:/by-run/1")
    client.create_model_version("by-run", f"models:/{info.model_id}", model_id=info.model_id)
    client.set_registered_model_alias("by-run", "champion", "2")
    return [run_id, info.model_id]


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
    """Prints where each model is."""
    print(
        json.dumps(
            [download_artifacts(uri, dst_path=folder) for uri, folder in zip(pairs[::2], pairs[1::2], strict=True)]
        )
    )


if __name__ == "__main__":
    {"fill": fill, "register": register_plain, "plain": plain, "download": download}[sys.argv[1]](*sys.argv[2:])
