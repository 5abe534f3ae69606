"""Reading a YAML file that people write: one mapping, no key twice, no objects."""

import os
from contextlib import suppress
from pathlib import Path
from typing import Any

import yaml

from lading.errors import NotAllowed, NotFound, UsageError
from lading.text.printable import printable
from lading.text.suggest import did_you_mean

_MOST_DEPTH = 100
_FORM = "write YAML: lines of key: value"
_Loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


class _StrictLoader(_Loader):  # type: ignore[misc, valid-type]  # PyYAML's C loader is chosen at run time
    """PyYAML's safe loader, except that a key given twice is an error: the second would win unseen."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen = set()
        for key_node, _ in node.value:
            key = self.construct_object(key_node, deep=True)
            if isinstance(key, str) and key in seen and key != "<<":
                raise yaml.constructor.ConstructorError(
                    None, None, f"the key {key!r} is given twice", key_node.start_mark
                )
            if isinstance(key, str):
                seen.add(key)
        mapping: dict[Any, Any] = super().construct_mapping(node, deep)
        return mapping


def read_yaml(path: Path) -> dict[str, Any]:
    """Read the mapping in this file (empty for an empty file); ``UsageError`` names the line."""
    try:
        text = path.read_text(encoding="utf-8")
    except IsADirectoryError as error:
        raise UsageError(f"{printable(str(path))} is a folder, not a file") from error
    except (FileNotFoundError, NotADirectoryError) as error:
        raise NotFound(f"there is no file {printable(str(path))}", hint=_beside(path)) from error
    except PermissionError as error:
        raise NotAllowed(f"{printable(str(path))} cannot be read") from error
    except OSError as error:
        raise UsageError(f"{printable(str(path))} cannot be read: {error.strerror or error}") from error
    except UnicodeDecodeError as error:
        raise UsageError(f"{printable(str(path))} is not UTF-8 text") from error
    return parse_yaml(text, str(path))


def _beside(path: Path) -> str:
    """The hint for a file that is missing: files beside it whose names are near."""
    with suppress(OSError):
        return did_you_mean(path.name, sorted(os.listdir(path.absolute().parent)))
    return ""


def parse_yaml(text: str, name: str) -> dict[str, Any]:
    """Read the mapping in ``text`` (empty for an empty text); errors name ``name`` and the line."""
    try:
        _check_depth(text)
        data = yaml.load(text, Loader=_StrictLoader)  # noqa: S506 - a subclass of the safe loader
    except yaml.MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else 1
        raise UsageError(f"{printable(name)}, line {line}: {error.problem}", hint=_FORM) from error
    except (yaml.YAMLError, RecursionError) as error:
        raise UsageError(f"{printable(name)} is not YAML", hint=_FORM) from error
    except (ValueError, KeyError, AttributeError, OverflowError) as error:
        # PyYAML's constructors raise these, for example for the date 2026-02-30 or for "!!bool perhaps".
        raise UsageError(
            f"{printable(name)} holds a value that cannot be read ({printable(str(error))[:80]})",
            hint="put quotes around a text that looks like a date or a number",
        ) from error
    if data is None:
        return {}
    if not isinstance(data, dict) or not all(isinstance(key, str) for key in data):
        raise UsageError(f"{printable(name)} does not hold a mapping with text keys", hint=_FORM)
    return data


def _check_depth(text: str) -> None:
    """Raise for a document that is nested too deeply: the C loader recurses for each level, and would crash."""
    depth = 0
    for event in yaml.parse(text, Loader=_Loader):
        depth += isinstance(event, yaml.CollectionStartEvent)
        depth -= isinstance(event, yaml.CollectionEndEvent)
        if depth > _MOST_DEPTH:
            raise yaml.YAMLError
