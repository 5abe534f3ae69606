"""The agent's configuration, which is read again when its files change."""

import hashlib
from collections.abc import Callable, Mapping
from pathlib import Path

from lading.agent.reconcile import refuse_unreadable
from lading.settings.agent import AgentSettings, read_agent
from lading.settings.section import errors_name
from lading.settings.settings import Settings, config_path


class Configuration:
    """The configuration in use: all ``settings``, and the agent's ``own`` of them.

    Raises the errors of the first one.  ``load`` reads the settings again.
    """

    def __init__(self, load: Callable[[], Settings], environ: Mapping[str, str] | None) -> None:
        self._load, self._path = load, config_path(environ)
        # Digests from before it is read: a change during the reading is noticed, and it is read again.
        seen = self._digests(Settings())
        self.settings = load()
        self.own = _declared(self.settings)
        self._seen = self._digests(self.settings) | seen

    def read_again(self) -> bool:
        """Whether the files have changed, and another configuration is in use now.

        ``LadingError`` if they have changed to what cannot be used: the one before stays in use, and they are read again
        after the next change.
        """
        seen = self._digests(self.settings)
        if seen == self._seen:
            return False
        self._seen = seen
        settings = self._load()
        own = _declared(settings)
        self.settings, self.own = settings, own
        self._seen = self._digests(settings) | {self._path: seen[self._path]}
        return True

    def _digests(self, settings: Settings) -> dict[Path, bytes]:
        """Digests of the configuration file and its files of keys, by content: in a ConfigMap only links change."""
        return {path: _digest(path) for path in (self._path, *(Path(rule.signers_file) for rule in settings.trust))}


def _declared(settings: Settings) -> AgentSettings:
    """The agent's settings; raises for deliveries that the configuration alone shows to be impossible."""
    own = read_agent(settings)
    with errors_name(settings.file):
        for delivery in own.deliveries:
            refuse_unreadable(delivery)
    return own


def _digest(path: Path) -> bytes:
    try:
        return hashlib.sha256(path.read_bytes()).digest()
    except OSError:
        return b""
