"""The versions of one model on disk, and which of them is in place.

    layout "link": a server reads DEST
      DEST -> .NAME.versions/KEY      changed by one rename(2)
      .NAME.versions/KEY/…            one version as it was delivered, with its .lading.manifest
      .NAME.versions/record.json      the record of the delivery                    (history)

    layout "numbered": a server reads the highest number below DEST
      DEST/7 -> .versions/KEY
      DEST/.versions/KEY/…  and  DEST/.versions/record.json

    layout "folder": a server reads DEST, which changes as ``lading pull`` changes it; there is no way back
      DEST/…
      .NAME.versions/record.json

KEY is a part of the SHA-256 over a pin and the patterns that choose files.  Links are relative: they are valid
wherever the volume is mounted.
"""

import errno
import hashlib
import os
import secrets
from collections.abc import Collection
from pathlib import Path

from lading.deliver import deliver
from lading.delivery.request import Request
from lading.destination.workspace import read_manifest
from lading.errors import IntegrityError, Unsupported, UsageError
from lading.model.manifest import Manifest
from lading.model.paths import FILE_NAME
from lading.session import Session
from lading.settings.agent import Delivery
from lading.system.disk import as_lading_errors, sync_folder
from lading.system.folders import remove_tree
from lading.text.printable import printable

_KEY_DIGITS = 16


class Versions:
    """The versions of one delivery on disk."""

    def __init__(self, delivery: Delivery) -> None:
        self.destination = Path(delivery.destination)
        self.layout = delivery.layout
        self._patterns = "\n".join((*delivery.allow, "", *delivery.ignore))
        if self.layout == "numbered":
            self.root = self.destination / ".versions"
        else:
            self.root = self.destination.parent / f".{self.destination.name}.versions"
        self.record = self.root / "record.json"

    def key(self, pin: str) -> str:
        """The name of the version with this pin."""
        return hashlib.sha256(f"{pin}\n{self._patterns}".encode("utf-8", "surrogateescape")).hexdigest()[:_KEY_DIGITS]

    def folder(self, key: str) -> Path:
        """The folder to which the version with this key is delivered."""
        return self.destination if self.layout == "folder" else self.root / key

    def fetch(self, uri: str, key: str, session: Session) -> str:
        """Deliver ``uri`` to the folder of the version ``key``; returns the key of the version that was delivered."""
        manifest = deliver([Request(uri, self.folder(key))], session)[0]
        return self._name(key, manifest.pin)

    def _name(self, key: str, pin: str) -> str:
        """Rename the version that was delivered as ``key`` to the key of its pin; returns that key."""
        real = self.key(pin)
        if real != key and self.layout != "folder":
            if self.manifest(real) is None:
                remove_tree(self.folder(real))
                self.folder(key).rename(self.folder(real))
            else:
                remove_tree(self.folder(key))
        return real

    def manifest(self, key: str) -> Manifest | None:
        """The manifest of a version, if it is on disk and complete; else None."""
        try:
            return read_manifest(self.folder(key) / FILE_NAME) if key else None
        except (IntegrityError, Unsupported):
            return None

    def current(self) -> str:
        """The key of the version in place, or "" if none is."""
        if self.layout == "folder":
            manifest = self.manifest("any")
            return self.key(manifest.pin) if manifest else ""
        if self.layout == "numbered":
            numbers = self._numbers()
            return self._led_to(self.destination / str(max(numbers))) if numbers else ""
        return self._led_to(self.destination)

    def switch(self, key: str) -> None:
        """Put a version in place: at every moment readers see either the one before or this one."""
        with as_lading_errors(self.destination):
            if self.layout == "link":
                self._refuse_folder()
                self._link(self.destination, key)
            elif self.layout == "numbered":
                self._number(key)

    def prune(self, keep: Collection[str]) -> None:
        """Remove every version but these and the one in place."""
        kept = {*keep, self.current()}
        if self.layout == "numbered":
            for number in self._numbers():
                path = self.destination / str(number)
                if self._led_to(path) not in kept:
                    path.unlink(missing_ok=True)
        for path in self.root.glob("*/") if self.layout != "folder" else ():
            if path.name not in kept and len(path.name) == _KEY_DIGITS:
                remove_tree(path)

    def _led_to(self, path: Path) -> str:
        """The key of the version that a link of lading points to; "" for anything else.

        ``OSError`` if the link cannot be read: the version in place must not be removed by mistake.
        """
        try:
            target = Path(os.path.normpath(path.parent / os.readlink(path)))
        except OSError as error:
            if error.errno not in (errno.EINVAL, errno.ENOENT, errno.ENOTDIR):
                raise
            return ""
        return target.name if target.parent == self.root else ""

    def _numbers(self) -> list[int]:
        try:
            names = os.listdir(self.destination)
        except (FileNotFoundError, NotADirectoryError):
            return []
        return [
            int(name) for name in names if name.isascii() and name.isdigit() and self._led_to(self.destination / name)
        ]

    def _number(self, key: str) -> None:
        """Give a version the highest number; if it has one already, higher numbers are removed instead."""
        known = {number: self._led_to(self.destination / str(number)) for number in self._numbers()}
        if key in known.values():
            lowest = max(number for number, led in known.items() if led == key)
            for number in sorted(known, reverse=True):
                if number > lowest:
                    (self.destination / str(number)).unlink()
            return
        taken = [int(name) for name in os.listdir(self.destination) if name.isascii() and name.isdigit()]
        self._link(self.destination / str(max(taken, default=0) + 1), key)

    def _link(self, path: Path, key: str) -> None:
        new = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
        new.symlink_to(os.path.relpath(self.root / key, path.parent))
        os.replace(new, path)
        sync_folder(path.parent)

    def _refuse_folder(self) -> None:
        if os.path.lexists(self.destination) and not self.destination.is_symlink():
            raise UsageError(
                f"{printable(str(self.destination))} already exists and is not a link, so it cannot switch between versions",
                hint="name a path in it, for example its folder 'current', or use the layout folder",
            )
