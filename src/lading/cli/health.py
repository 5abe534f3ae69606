"""``lading health``: ask a running agent on this machine, for probes that run a command."""

import argparse

from lading.cli.output import show, use_format
from lading.errors import LadingError, Unavailable
from lading.events import ignore
from lading.session import Session
from lading.settings.agent import AgentSettings, read_agent
from lading.settings.settings import Settings
from lading.settings.variables import parse_port
from lading.text.printable import printable

_MOST_SHOWN = 500


def add_arguments(command: argparse.ArgumentParser) -> None:
    command.description = (
        "Ask the agent (or init) on this machine: is every model in place? For probes that run a command."
    )
    question = command.add_mutually_exclusive_group()
    question.add_argument("--live", action="store_true", help="only check that it answers")
    question.add_argument("--started", action="store_true", help="check that every model had its first cycle")
    command.add_argument("--port", type=parse_port, help="the agent's port (default: agent.port of the configuration)")
    command.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    try:
        settings = Settings.load(arguments.environ)
        use_format(settings.log_format)
        # The configuration may be wrong by now: the agent goes on with the one before.
        own = read_agent(settings._replace(deliveries=()))
    except LadingError:
        if arguments.port is None:
            raise
        settings, own = Settings(), AgentSettings()
    scheme = "https" if own.certificate else "http"
    host = "127.0.0.1" if own.listen in ("0.0.0.0", "") else "::1" if own.listen == "::" else own.listen  # noqa: S104 - compared
    name = f"[{host}]" if ":" in host else host
    path = "healthz" if arguments.live else "startupz" if arguments.started else "readyz"
    url = f"{scheme}://{name}:{own.port if arguments.port is None else arguments.port}/{path}"
    with Session(settings, ignore) as session:
        client = session.http.direct(connect_s=2.0, stall_s=5.0, retry=session.retry._replace(attempts=1))
        # A certificate for another name than this machine's own is no reason for a restart.
        try:
            with client.without_tls_checks().open("GET", url, redirects=0) as answer:
                status, body = answer.head.status, answer.read(64 << 10)
        except Unavailable as error:
            error.hint = "is the agent running? --port says where it listens"
            raise
    said = printable(body.decode("utf-8", "replace").strip())[:_MOST_SHOWN]
    if status != 200:
        raise Unavailable(f"the agent answers {status}: {said}", hint="its page or log says more")
    show(said)
    return 0
