"""A destination that remembers how it was."""

import json
from pathlib import Path

from fakes.trees import read_tree, whole_manifest
from lading.model.manifest import Manifest

OLD_MODEL = {"config.json": b"old", "old/weights.bin": b"old weights", "model.bin": b"the old model"}


class Destination:
    """A folder to deliver to, and what was in it before."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.before = self._everything()

    def _everything(self) -> dict[str, bytes] | None:
        if not self.path.exists():
            return None
        found = read_tree(self.path)
        manifest = self.path / ".lading.manifest"
        return found | ({".lading.manifest": manifest.read_bytes()} if manifest.exists() else {})

    def received_bytes(self) -> int:
        """Bytes that the journal of an interrupted delivery promises; a torn last line promises nothing."""
        journal = self.path / ".lading" / "journal"
        # Of the lines of one range the last one counts.
        received = {}
        for line in journal.read_text().splitlines()[1:] if journal.exists() else ():
            try:
                path, _, _, start, end, _ = json.loads(line)
            except ValueError:
                break
            received[path, start] = end - start
        return sum(received.values())

    def assert_untouched(self) -> None:
        """Nothing but ``.lading/`` may have come, and nothing may have gone."""
        assert (self._everything() or None) == self.before
        assert not (self.path.parent / f".{self.path.name}.lading").exists()

    def assert_nothing_partial(self, new: dict[str, bytes]) -> None:
        """Every file that has its name is whole; with a manifest, the model is."""
        old = OLD_MODEL if self.before else {}
        found = read_tree(self.path) if self.path.exists() else {}
        assert [path for path, data in found.items() if data not in (old.get(path), new.get(path))] == []
        if (self.path / ".lading.manifest").exists():
            assert found in (old, new)

    def assert_holds_one_of(self, *models: dict[str, bytes]) -> None:
        """Exactly one of these models, and a manifest that says so."""
        assert read_tree(self.path) in models
        whole_manifest(self.path)

    def assert_holds(self, files: dict[str, bytes]) -> Manifest:
        """Exactly these files, and a manifest that says so."""
        assert read_tree(self.path) == files
        return whole_manifest(self.path)
