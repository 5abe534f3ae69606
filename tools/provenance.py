"""What was built from what: an in-toto statement with a predicate of SLSA's provenance.

https://github.com/in-toto/attestation/blob/main/spec/v1/statement.md
https://slsa.dev/spec/v1.1/provenance
"""

import hashlib
from collections.abc import Iterable, Mapping
from datetime import datetime
from pathlib import Path
from typing import Any

# RELEASE.md says what a build of this type does.
BUILD_TYPE = "urn:lading:make-release:1"
BY_HAND = "urn:lading:by-hand"


def sha256(file: Path) -> str:
    """The digest of a file, in lower-case hexadecimal."""
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def statement(
    artifacts: Iterable[Path],
    parameters: Mapping[str, Any],
    materials: Iterable[Mapping[str, Any]],
    run: Mapping[str, Any],
) -> dict[str, Any]:
    """What says that a run with these parameters made ``artifacts`` from ``materials``."""
    return {
        "_type": "https://in-toto.io/Statement/v1",
        "subject": [{"name": file.name, "digest": {"sha256": sha256(file)}} for file in artifacts],
        "predicateType": "https://slsa.dev/provenance/v1",
        "predicate": {
            "buildDefinition": {
                "buildType": BUILD_TYPE,
                "externalParameters": dict(parameters),
                "resolvedDependencies": [dict(material) for material in materials],
            },
            "runDetails": dict(run),
        },
    }


def materials(tree: Path, commit: str, version: str, base: str, environ: Mapping[str, str]) -> list[dict[str, Any]]:
    """The commit, the requirement files that fix every Python package by hash, and the image's base if it is named by digest."""
    source: dict[str, Any] = {"name": "source", "digest": {"gitCommit": commit}}
    if "GITHUB_REPOSITORY" in environ:
        repository = f"{environ['GITHUB_SERVER_URL']}/{environ['GITHUB_REPOSITORY']}"
        source["uri"] = f"git+{repository}@refs/tags/v{version}"
    locks = [tree / "requirements" / name for name in ("runtime.txt", "build.txt")]
    found = [source, *({"name": f"requirements/{file.name}", "digest": {"sha256": sha256(file)}} for file in locks)]
    name, _, digest = base.partition("@sha256:")
    return [*found, {"uri": f"docker://{name}", "digest": {"sha256": digest}}] if digest else found


def run_details(started: datetime, finished: datetime, environ: Mapping[str, str]) -> dict[str, Any]:
    """Who ran the build, and when: a workflow by its own name, anybody else by hand."""
    metadata = {"startedOn": _moment(started), "finishedOn": _moment(finished)}
    if "GITHUB_WORKFLOW_REF" not in environ:
        return {"builder": {"id": BY_HAND}, "metadata": metadata}
    server = environ["GITHUB_SERVER_URL"]
    run = f"{server}/{environ['GITHUB_REPOSITORY']}/actions/runs/{environ['GITHUB_RUN_ID']}"
    return {
        "builder": {"id": f"{server}/{environ['GITHUB_WORKFLOW_REF']}"},
        "metadata": metadata | {"invocationId": f"{run}/attempts/{environ['GITHUB_RUN_ATTEMPT']}"},
    }


def _moment(when: datetime) -> str:
    return when.strftime("%Y-%m-%dT%H:%M:%SZ")
