"""Which modules an import from lading leads to, found by reading code and running none of it."""

import sys
import sysconfig
from collections.abc import Iterable, Iterator
from modulefinder import ModuleFinder
from pathlib import Path

# What is imported by name at run time, where no import statement says so.
BY_NAME = (
    "encodings.ascii",
    "encodings.cp437",  # names in zip archives
    "encodings.idna",
    "encodings.latin_1",
    "encodings.utf_8",
    "encodings.utf_8_sig",
    "site",
    "_sitebuiltins",
    "_strptime",
    f"_sysconfigdata_{sys.abiflags}_{sys.platform}_{sysconfig.get_config_var('MULTIARCH') or ''}",  # for zoneinfo
)
# Imports that are there for other systems, for tests, for people at a prompt, for what is there in C, or for what
# lading never calls.
_NOT_HERE = (
    "_pydatetime", "_pydecimal", "_pyrepl", "asyncio", "bdb", "cmd", "code", "codeop", "curses", "doctest", "ensurepip", "idlelib",
    "lib2to3", "multiprocessing", "ntpath", "nturl2path", "pdb", "pydoc", "pydoc_data", "readline", "rlcompleter", "sitecustomize",
    "sqlite3", "test", "tkinter", "turtle", "unittest", "usercustomize", "venv", "webbrowser", "wsgiref", "xmlrpc",
)  # fmt: skip


def modules(site: Path, library: Iterable[Path], by_name: Iterable[str] = BY_NAME) -> dict[str, Path]:
    """Each module that an import from any module of ``site/lading`` leads to, in ``site`` or ``library``, and its file."""
    finder = ModuleFinder([str(site), *map(str, library)], excludes=list(_NOT_HERE))
    for name in (*sorted(_names(site / "lading", site)), *by_name):
        finder.import_hook(name)
    files = {name: getattr(module, "__file__", None) for name, module in finder.modules.items()}
    return {name: Path(file) for name, file in files.items() if file}


def strays(site: Path, library: Iterable[Path], by_name: Iterable[str] = BY_NAME) -> list[Path]:
    """Every file of code in ``site`` and ``library`` that no import from lading leads to."""
    folders = [site, *library]
    found = set(modules(site, folders[1:], by_name).values())
    return sorted({path for folder in folders for path in _code(folder)} - found)


def _code(folder: Path) -> Iterator[Path]:
    # Libraries that a wheel brings along, in NAME.libs, are no modules.
    code = (path for path in folder.rglob("*") if path.suffix in (".py", ".pyc", ".so"))
    return (path for path in code if not path.relative_to(folder).parts[0].endswith(".libs"))


def _names(package: Path, site: Path) -> set[str]:
    places = (path.relative_to(site).with_suffix("") for path in _code(package))
    return {".".join(place.parent.parts if place.name == "__init__" else place.parts) for place in places}
