"""``lading controller``: let the services of a cluster follow names of models, until it is stopped."""

import argparse
import os
import socket
import threading
import time
from collections.abc import Mapping

from lading.agent.http_server import Endpoint
from lading.agent.webhooks import Webhooks
from lading.cli import output
from lading.cli.options import read_settings
from lading.cli.reporters import reporter_of, reporter_of_outages
from lading.controller.asking import Asking
from lading.controller.controller import Controller
from lading.controller.telling import NAME
from lading.errors import Interrupted
from lading.kubernetes.api_server import ApiServer
from lading.kubernetes.leader import Leader
from lading.session import Session
from lading.settings.agent import read_agent
from lading.settings.controller import read_controller
from lading.settings.kubernetes import read_access
from lading.settings.settings import Settings
from lading.settings.traces import read_traces
from lading.system.threads import start_daemon
from lading.telemetry.otlp import sending


def add_arguments(command: argparse.ArgumentParser) -> None:
    command.description = (
        "Look after the ModelRollouts of a cluster: pin new versions, judge them, roll back. Health, metrics and a page "
        "at agent.port."
    )
    command.add_argument(
        "-n", "--namespace", default="", help="look after this one alone, with a Role; without it, after all of them"
    )
    command.add_argument("--log-format", choices=("text", "json"), help="how events and errors are written")
    command.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    settings = read_settings(arguments)

    def load() -> Settings:
        # Loaded again for each question: mounted secrets may have been rotated.
        return Settings.load(arguments.environ)

    own = read_agent(settings)
    read_controller(settings)
    session = Session(settings._replace(limits=settings.limits._replace(deadline_s=0)), reporter_of_outages())
    access = read_access(settings.variables, settings.network)
    # The controller outlives the process that started it, so its rollouts are not part of that trace.
    with session, sending(read_traces(settings.variables), reporter_of(""), {}, settings.network) as send:
        server = ApiServer(access, session.http)
        instance = f"{socket.gethostname()}-{os.getpid()}"
        woken = threading.Event()
        asking = Asking.of(load, session.run.clock, woken.set)
        leader = Leader(server, NAME, access.namespace, instance)
        controller = Controller(
            server,
            asking,
            leader,
            reporter_of,
            namespace=arguments.namespace,
            instance=instance,
            woken=woken,
            send=send,
        )
        webhooks = Webhooks(own.mlflow_secret_file, time.time, controller.shown.metrics)

        def take_webhook(headers: Mapping[str, str], body: bytes) -> bool:
            believed = webhooks.accept(headers, body)
            if believed:
                controller.ask_now()
            return believed

        try:
            with Endpoint(own, controller.shown, take_webhook=take_webhook) as endpoint:
                output.note(f"health, metrics and status page: {endpoint.url}")
                for name, work in {**controller.watchers(), **asking.threads()}.items():
                    start_daemon(name, work)
                controller.run()
        except (Interrupted, KeyboardInterrupt):
            # The controller runs until it is stopped, so that is no failure.
            session.run.stop.set()
            output.note("stopped")
    return 0
