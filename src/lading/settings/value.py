"""Values of the configuration that may be secrets: written there, or in a file or variable that it names."""

from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import NamedTuple

from lading.errors import UsageError
from lading.settings.variables import Variables
from lading.system.disk import disk_error, read_secret_file
from lading.text.printable import printable


class Value(NamedTuple):
    """A text, or a reference to one: ``{file: path}`` or ``{env: NAME}``.  It is never printed."""

    text: str = ""
    file: str = ""
    env: str = ""

    @classmethod
    def parse(cls, written: object, where: str) -> "Value":
        """Read what is ``written`` at the place ``where``; ``UsageError`` if it has none of the three forms."""
        if isinstance(written, str | int | float):
            return cls(str(written).lower() if isinstance(written, bool) else str(written))
        if isinstance(written, dict) and len(written) == 1:
            ((key, text),) = written.items()
            if key in ("file", "env") and isinstance(text, str) and text:
                return cls(**{key: text})
        raise UsageError(
            f"{printable(where)} is neither a text nor a reference to one",
            hint=f"write {printable(where.rpartition(' ')[2])}: text, or {{file: /path}}, or {{env: NAME}}",
        )

    def read(self, variables: Variables) -> str:
        """The present text: a file is read again at each call, a variable is looked up in ``variables``."""
        if self.file:
            return read_secret_file(self.file)
        if not self.env:
            return self.text
        if self.env not in variables:
            raise UsageError(
                f"the variable {printable(self.env)}, which the configuration names, is not set",
                hint="set it, or write {file: /path}",
            )
        return variables[self.env]

    def __repr__(self) -> str:
        return "<value>"


class ValuesByName(NamedTuple):
    """Values by the names of variables: the files of ``folder`` (a mounted Secret), and ``variables``, which win."""

    folder: str = ""
    variables: Mapping[str, Value] = MappingProxyType({})

    def read(self, variables: Variables) -> dict[str, str]:
        """The present values by name."""
        found = {}
        if self.folder:
            try:
                paths = sorted(Path(self.folder).iterdir())
            except OSError as error:
                raise disk_error(error, self.folder) from error
            # A mounted Secret keeps its versions in folders that begin with two dots.
            found = {
                path.name: read_secret_file(str(path))
                for path in paths
                if not path.name.startswith("..") and path.is_file()
            }
        return found | {name: value.read(variables) for name, value in self.variables.items()}

    def check(self, where: str) -> None:
        """Raise if neither a folder nor variables are configured."""
        if not self.folder and not self.variables:
            raise UsageError(
                f"{where} needs a folder or variables",
                hint="write folder: /etc/lading/team-a, or variables: {HF_TOKEN: {file: /etc/lading/token}}",
            )
