"""The controller's settings: the section ``controller`` of the configuration file.

controller:
  prometheus: http://prometheus.monitoring.svc:9090
  urls: [https://models.example.com/]
"""

import re
from typing import NamedTuple

from lading.errors import UsageError
from lading.settings.section import errors_name, read_section
from lading.settings.settings import Settings
from lading.text.printable import printable

# Nothing that a server may read as another place: no login, no percent, no backslash.
_URL = re.compile(r"https?://[A-Za-z0-9.-]+(:[0-9]{1,5})?(/[A-Za-z0-9/._~-]*)?(\?[A-Za-z0-9/._~=&{}:-]*)?")
_EXAMPLES = {"prometheus": "http://prometheus.monitoring.svc:9090", "urls": '["https://models.example.com/"]'}
_NAMESPACE = "{namespace}"


class ControllerSettings(NamedTuple):
    """What the checks of rollouts may ask besides their own pods; by default nothing.

    ``prometheus`` is the URL of the server that answers queries; ``{namespace}`` in its query stands for that of the
    rollout.  ``urls`` are beginnings of URLs.
    """

    prometheus: str = ""
    urls: tuple[str, ...] = ()

    def allows(self, url: str) -> bool:
        """Whether a rollout may let the controller ask ``url``."""
        return _is_plain(url) and any(_begins(url, beginning) for beginning in self.urls)

    def prometheus_for(self, namespace: str) -> str:
        """The URL of Prometheus for the rollouts of a namespace; "" if there is none."""
        return self.prometheus.replace(_NAMESPACE, namespace)


def read_controller(settings: Settings) -> ControllerSettings:
    """Read the controller's part of the configuration; ``UsageError`` for anything in it that is not understood."""
    with errors_name(settings.file):
        own = read_section(ControllerSettings, settings.controller, "controller", examples=_EXAMPLES)
        prometheus = [own.prometheus] if own.prometheus else []
        for key, url in (*(("urls", each) for each in own.urls), *(("prometheus", each) for each in prometheus)):
            if not _is_plain(url):
                raise UsageError(
                    f"controller.{key} has the URL {printable(url)!r}", hint=f"write, for example, {_EXAMPLES[key]}"
                )
        return own


def _is_plain(url: str) -> bool:
    return bool(_URL.fullmatch(url)) and not {".", ".."} & set(url.partition("?")[0].split("/"))


def _begins(url: str, beginning: str) -> bool:
    """Whether ``url`` is ``beginning`` or below it: ``/v2`` is not the beginning of ``/v20``."""
    return url == beginning or url.startswith(beginning.rstrip("/") + "/")
