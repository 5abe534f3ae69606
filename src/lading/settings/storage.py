"""Variables that come as JSON or as files: KServe's storage JSON, and credentials for a URI's prefix."""

import json
from collections.abc import Mapping
from importlib import import_module
from pathlib import Path
from typing import Any

from lading.errors import UsageError
from lading.settings.families import STORAGE_TYPES
from lading.settings.variables import Variables
from lading.system.disk import disk_error, read_secret_file
from lading.text.json_xml import read_json
from lading.text.printable import printable


def with_storage_json(variables: Variables) -> Variables:
    """The variables as KServe means them: each key of the storage JSON in the place of what it stands for."""
    kind = ""
    for name in ("STORAGE_CONFIG", "STORAGE_OVERRIDE_CONFIG"):
        text = variables.get(name)
        if not text:
            continue
        try:
            spec = read_json(text)
        except ValueError:
            spec = None
        if not isinstance(spec, dict):
            # The text is a secret: it is not quoted.
            raise UsageError(f"{name} is not a JSON object", hint="see docs/kserve.md for its keys")
        kind = str(spec.get("type") or kind or "s3").lower()
        # Said once: laid over again later, it would win over what is more exact.
        variables = variables.overlaid(_meant(spec, _keys(kind, name)) | {name: ""})
    return variables


def _keys(kind: str, name: str) -> Mapping[str, str]:
    module = STORAGE_TYPES.get(kind)
    if module is None:
        raise UsageError(
            f"{name} is of the unknown type {printable(kind)!r}", hint=f"known: {', '.join(STORAGE_TYPES)}"
        )
    keys: Mapping[str, str] = import_module(module).STORAGE_KEYS
    return keys


def _meant(spec: Mapping[str, Any], keys: Mapping[str, str]) -> dict[str, str]:
    values = {}
    for key, variable in keys.items():
        value = spec.get(key)
        if value is None or value == "":
            continue
        if isinstance(value, dict | list):
            values[variable] = json.dumps(value)
        else:
            values[variable] = ("true" if value else "false") if isinstance(value, bool) else str(value)
    return values


def rule_values(folder: str, values: Mapping[str, Any], variables: Variables) -> dict[str, str]:
    """What a rule for credentials says now: the files of its folder, then what is written in it."""
    found = {}
    if folder:
        try:
            paths = sorted(Path(folder).iterdir())
        except OSError as error:
            raise disk_error(error, folder) from error
        # A mounted Secret keeps its versions in folders that begin with two dots.
        found = {
            path.name: read_secret_file(str(path))
            for path in paths
            if not path.name.startswith("..") and path.is_file()
        }
    return found | {str(name): read_value(str(name), value, variables) for name, value in values.items()}


def read_value(name: str, value: object, variables: Variables) -> str:
    """A text of the configuration, or what is in the file or variable that it names: ``{file: …}``, ``{env: …}``."""
    check_value(name, value)
    if not isinstance(value, dict):
        return str(value).lower() if isinstance(value, bool) else str(value)
    if "file" in value:
        return read_secret_file(value["file"])
    if value["env"] not in variables:
        raise UsageError(f"the variable {printable(value['env'])}, which the configuration names, is not set")
    return variables[value["env"]]


def check_value(name: str, value: object) -> None:
    """Raise for a value of the configuration, perhaps a secret, that is neither a text nor says where one is."""
    where = next(iter(value.items())) if isinstance(value, dict) and len(value) == 1 else ("", None)
    if isinstance(value, str | int | float) or (where[0] in ("file", "env") and isinstance(where[1], str)):
        return
    raise UsageError(
        f"{printable(name)} is neither a text nor a reference to one",
        hint=f"write {printable(name.rpartition(' ')[2])}: text, or {{file: /path}}, or {{env: NAME}}",
    )
