"""KServe's storage JSON: variables that are given as keys of a JSON object."""

import json
from collections.abc import Mapping
from importlib import import_module
from typing import Any

from lading.errors import UsageError
from lading.settings.families import STORAGE_TYPES
from lading.settings.variables import Variables
from lading.text.json_xml import read_json
from lading.text.printable import printable


def with_storage_json(variables: Variables) -> Variables:
    """The variables with the storage JSON laid over them: each key becomes the variable that it stands for."""
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
        # The JSON is used only once: a second time it would override more exact values.
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
