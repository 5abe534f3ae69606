"""Made the models in this folder: three classifiers of iris flowers, and the catalog that names them.

Not needed to use them.  To make them again, byte for byte (lading itself needs none of these packages):

    python3.11 -m venv /tmp/train
    /tmp/train/bin/pip install numpy==2.4.6 scikit-learn==1.9.1 skl2onnx==1.20.0 onnx==1.23.2
    /tmp/train/bin/python examples/train.py
"""

import csv
import hashlib
import json
import shutil
from pathlib import Path

import numpy
import sklearn
from skl2onnx import to_onnx
from sklearn.base import ClassifierMixin
from sklearn.datasets import load_iris
from sklearn.ensemble import RandomForestClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import accuracy_score, confusion_matrix
from sklearn.model_selection import train_test_split
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.tree import DecisionTreeClassifier

HERE = Path(__file__).resolve().parent
OPSET = 17
SEED = 7
HELD_OUT = 50
MODELS: dict[str, tuple[str, ClassifierMixin]] = {
    "v0": ("decision stump", DecisionTreeClassifier(max_depth=1, random_state=SEED)),
    "v1": ("logistic regression on standardised features", make_pipeline(StandardScaler(), LogisticRegression())),
    "v2": ("random forest of 8 trees", RandomForestClassifier(n_estimators=8, max_depth=4, random_state=SEED)),
}
CATALOG_HEAD = """\
# Names for the models beside this file: model-registry://iris, iris/v1, iris@champion, …
# Written by train.py; the digests are those of sha256sum.
models:
  iris:
    description: Iris flowers (Fisher, 1936), told apart by four lengths in centimetres
    aliases:
      champion: v1
      challenger: v2
    versions: # from old to new; the last live one is the newest
"""


def main() -> None:
    """Write every version's folder, and the catalog."""
    iris = load_iris()
    features = [name.removesuffix(" (cm)").replace(" ", "_") + "_cm" for name in iris.feature_names]
    classes = [str(name) for name in iris.target_names]
    split = train_test_split(
        iris.data.astype(numpy.float32), iris.target, test_size=HELD_OUT, stratify=iris.target, random_state=SEED
    )
    catalog = CATALOG_HEAD
    for version, (algorithm, model) in MODELS.items():
        folder = HERE / "iris" / version
        shutil.rmtree(folder, ignore_errors=True)
        accuracy = write_model(folder, version, algorithm, model, split, features, classes)
        catalog += catalog_entry(folder, version, algorithm, accuracy)
        print(f"iris/{version}: {algorithm}, {accuracy:.0%} of {HELD_OUT} held-out flowers are right")
    (HERE / "catalog.yaml").write_text(catalog, encoding="utf-8")


def write_model(
    folder: Path,
    version: str,
    algorithm: str,
    model: ClassifierMixin,
    split: list[numpy.ndarray],
    features: list[str],
    classes: list[str],
) -> float:
    """Train, measure and export one version; returns its accuracy on the held-out flowers."""
    train_x, test_x, train_y, test_y = split
    model.fit(train_x, train_y)
    predicted = model.predict(test_x)
    accuracy = round(float(accuracy_score(test_y, predicted)), 4)
    (folder / "evaluation").mkdir(parents=True)
    onnx = to_onnx(model, train_x[:1], name=f"iris-{version}", options={"zipmap": False}, target_opset=OPSET)
    (folder / "model.onnx").write_bytes(onnx.SerializeToString(deterministic=True))
    (folder / "labels.txt").write_text("".join(f"{name}\n" for name in classes), encoding="utf-8")
    config = {
        "name": "iris",
        "version": version,
        "format": "onnx",
        "opset": OPSET,
        "input": {"name": onnx.graph.input[0].name, "type": "float32", "features": features},
        "outputs": [output.name for output in onnx.graph.output],
        "classes": classes,
        "accuracy": accuracy,
        "training": {
            "algorithm": algorithm,
            "rows": len(train_x),
            "held_out_rows": len(test_x),
            "seed": SEED,
            "made_with": f"scikit-learn {sklearn.__version__}",
        },
    }
    (folder / "config.json").write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
    confusion = {"rows": "true class", "columns": "predicted class", "counts": confusion_matrix(test_y, predicted)}
    (folder / "evaluation" / "confusion.json").write_text(
        json.dumps(confusion, default=lambda counts: counts.tolist()) + "\n", encoding="utf-8"
    )
    with (folder / "evaluation" / "held-out.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow([*features, "class"])
        for row, kind in zip(test_x, test_y, strict=True):
            writer.writerow([*(f"{value:.1f}" for value in row), classes[kind]])
    return accuracy


def catalog_entry(folder: Path, version: str, algorithm: str, accuracy: float) -> str:
    """The lines of one version in the catalog."""
    digests = {
        path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }
    return (
        f"      {version}:\n"
        f"        uri: iris/{version}\n"
        f"        state: {'archived' if version == 'v0' else 'live'}\n"
        f"        metadata: {{format: onnx, algorithm: {algorithm}, accuracy: {accuracy}}}\n"
        "        digests:\n" + "".join(f"          {path}: sha256:{digest}\n" for path, digest in digests.items())
    )


if __name__ == "__main__":
    main()
