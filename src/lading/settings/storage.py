"""KServe's storage JSON: variables that are given as keys of a JSON object, and digests of models.

{"type": "s3", "digests": {"s3://bucket/iris.joblib": "sha256:…", "s3://bucket/llm": {"a.safetensors": "sha256:…"}}}
"""

import json
from collections.abc import Collection, Iterator, Mapping
from importlib import import_module
from typing import Any

from lading.errors import UsageError
from lading.model.digest import Digest
from lading.model.uri import ModelURI
from lading.settings.families import STORAGE_TYPES
from lading.settings.variables import Variables
from lading.text.json_xml import read_unique_json
from lading.text.printable import printable

# No environment has a variable of this name.  Each storage JSON adds its digests, and takes none away.
_DIGESTS = "digests of storage JSON"
_DIGESTS_HINT = 'write {"s3://bucket/model.bin": "sha256:…"}, or {"s3://bucket/model": {"PATH": "sha256:…"}}'


def with_storage_json(variables: Variables) -> Variables:
    """The variables with the storage JSON laid over them: each key becomes the variable that it stands for."""
    kind = ""
    for name in ("STORAGE_CONFIG", "STORAGE_OVERRIDE_CONFIG"):
        text = variables.get(name)
        if not text:
            continue
        try:
            spec = read_unique_json(text)
        except ValueError:
            spec = None
        if not isinstance(spec, dict):
            # The text is a secret: it is not quoted.
            raise UsageError(f"{name} is not a JSON object, or has a key twice", hint="see docs/kserve.md for its keys")
        kind = str(spec.get("type") or kind or "s3").lower()
        # The JSON is used only once: a second time it would override more exact values.
        digests = [*json.loads(variables.get(_DIGESTS, "[]")), *_digests(spec.get("digests"), name)]
        variables = variables.overlaid(
            _meant(spec, _keys(kind, name)) | {name: ""} | ({_DIGESTS: json.dumps(digests)} if digests else {})
        )
    return variables


def names_of(uri: ModelURI) -> set[str]:
    """The identities by which a storage JSON may name the model at ``uri``: as written, and in normal form."""
    normal = uri.canonical()
    return {uri.identity(), normal._replace(path=normal.path.rstrip("/")).identity()}


def storage_digests(variables: Variables, names: Collection[str]) -> Iterator[tuple[str, Digest]]:
    """The digests that storage JSONs give for a model with one of these ``names``, by path; "" is a model's only file."""
    for uri, path, digest in json.loads(variables.get(_DIGESTS, "[]")):
        if not names_of(ModelURI.parse(uri)).isdisjoint(names):
            yield path, Digest.parse(digest)


def _digests(given: Any, name: str) -> Iterator[tuple[str, str, str]]:
    """The digests of one storage JSON: URI, path, digest."""
    try:
        # KServe's parameters of a service are texts.
        models = read_unique_json(given) if isinstance(given, str) and given else given or {}
        for uri, by_path in models.items():
            names_of(ModelURI.parse(uri))
            for path, digest in (by_path if isinstance(by_path, dict) else {"": by_path}).items():
                yield uri, path, str(Digest.parse(digest))
    except (ValueError, TypeError, AttributeError, UsageError) as error:
        raise UsageError(f"{name}: its digests are not understood", hint=_DIGESTS_HINT) from error


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
