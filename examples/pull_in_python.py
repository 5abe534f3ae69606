"""Two calls of the library: look behind a name, then bring it.  Usage: pull_in_python.py DEST"""

import json
import sys
from pathlib import Path

import lading

HERE = Path(__file__).resolve().parent


def main(destination: Path) -> None:
    """Deliver the champion to ``destination`` and print what it is."""
    # Both calls read the environment themselves when no settings are given, as the commands do.
    settings = lading.Settings.load({"LADING_CATALOG": str(HERE / "catalog.yaml")})

    listed = lading.resolve("model-registry://iris@champion", settings=settings)
    print(f"champion is {listed.version}: {len(listed.files)} files, {listed.size_bytes} bytes")

    manifest = lading.pull("model-registry://iris@champion", destination, settings=settings)
    config = json.loads((destination / "config.json").read_text(encoding="utf-8"))
    print(f"{destination} holds {manifest.digest}")
    print(f"{config['training']['algorithm']}, accuracy {config['accuracy']}")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
