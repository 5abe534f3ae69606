"""Telling a registry which services have which versions: what was delivered where, and how rollouts ended."""

from typing import Any

from lading.errors import UsageError, lading_error
from lading.events import Listener, NotRecorded, Recorded, ignore
from lading.model.manifest import Manifest
from lading.network.client import HttpClient
from lading.registries.federation import entry_of, open_registry
from lading.registries.registry import Deployment, Records, Resolution
from lading.settings.registries import RegistryEntry
from lading.settings.settings import Settings
from lading.text.printable import printable

# Recording comes after the delivery, but before the end of the process that a pod waits for.
_RECORDING_PATIENCE_S = 5.0


def record(
    resolution: Resolution,
    manifest: Manifest,
    destination: str,
    settings: Settings,
    http: HttpClient,
    listener: Listener = ignore,
) -> None:
    """Tell the registry that resolved it what was delivered where, if its entry says ``record: true``.

    The model is in place by now: whatever fails here is told to the listener, and that is all.
    """
    entry = entry_of(resolution, settings)
    if entry is None or not entry.server.record:
        return
    try:
        deployment = _delivered(manifest, destination, settings)
        tell(entry, resolution, deployment, settings, http)
    except Exception as error:  # noqa: BLE001 - a delivery that is done must not fail by what comes after it
        failure = lading_error(error)
        listener(NotRecorded(entry.name, f"{failure.message} ({failure.hint})" if failure.hint else failure.message))
    else:
        listener(Recorded(entry.name, deployment.environment, deployment.service))


def tell(
    entry: RegistryEntry[Any], resolution: Resolution, deployment: Deployment, settings: Settings, http: HttpClient
) -> None:
    """Tell the registry of this entry, which resolved it, of a deployment: in one attempt, within seconds.

    ``UsageError`` if registries of its kind cannot record deployments.
    """
    limits = settings.limits._replace(
        connect_s=min(settings.limits.connect_s, _RECORDING_PATIENCE_S),
        stall_s=min(settings.limits.stall_s, _RECORDING_PATIENCE_S),
    )
    brief = http.reaching(settings.network, limits, http.retry._replace(attempts=1))
    registry = open_registry(entry, settings._replace(limits=limits), brief)
    if not isinstance(registry, Records):
        raise UsageError(f"a registry of the kind {printable(entry.kind)} cannot record deliveries")
    registry.record(resolution, deployment)


def _delivered(manifest: Manifest, destination: str, settings: Settings) -> Deployment:
    environment, service = (settings.variables.get(name, "") for name in ("POD_NAMESPACE", "INFERENCE_SERVICE_NAME"))
    if not environment or not service:
        raise UsageError(
            "the service that needs this delivery is not known",
            hint="set POD_NAMESPACE and INFERENCE_SERVICE_NAME, as docs/registries.md shows",
        )
    digest, files, size_bytes = str(manifest.digest), len(manifest.files), manifest.size_bytes
    facts = {"digest": digest, "destination": destination, "files": str(files), "bytes": str(size_bytes)}
    summary = f"{digest}, {files} files, {size_bytes} bytes"
    return Deployment("delivered", environment, service, "COMPLETE", digest, facts, summary)
