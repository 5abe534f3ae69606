"""Probes, metrics, the page and hints over HTTP, and what a stranger may try with them."""

import base64
import contextlib
import hashlib
import hmac
import http.client
import os
import re
import socket
import ssl
import threading
import time
from html.parser import HTMLParser

import pytest

from fakes.certificates import Authority
from lading.agent import http_server as endpoint_module
from lading.agent.http_server import Endpoint
from lading.agent.metrics import METRICS, Metrics
from lading.agent.page import Deliveries
from lading.agent.status import Status
from lading.agent.webhooks import Webhooks
from lading.errors import UsageError
from lading.events import Evicted, Failed, Listed, Progress, Retried
from lading.settings.agent import AgentSettings, Delivery
from lading.settings.store import StoreSettings

HOSTILE = '"><script>alert(1)</script>\u202e\x1b[31m'
DELIVERY = Delivery("iris", "https://user:pass@host/m?sig=secret", "/mnt/models/iris")


@pytest.fixture
def status():
    status = Status(Metrics())
    status.configure([DELIVERY])
    return status


@pytest.fixture
def serve(status):
    """Serve with these settings; gives ``ask(method, path, headers, body)``."""
    with contextlib.ExitStack() as stack:

        def start(take_webhook=lambda headers, body: False, context=None, **settings):
            own = AgentSettings(port=0, **settings)
            running = stack.enter_context(Endpoint(own, Deliveries(status, StoreSettings), take_webhook=take_webhook))

            def ask(path, method="GET", headers=None, body=None):
                kind = http.client.HTTPSConnection if context else http.client.HTTPConnection
                options = {"context": context} if context else {}
                with contextlib.closing(kind("127.0.0.1", running.port, timeout=20, **options)) as client:
                    client.request(method, path, body, headers or {})
                    answer = client.getresponse()
                    return answer.status, answer.read().decode(), answer.headers

            ask.port = running.port
            return ask

        yield start


def test_probes_say_what_is_lacking(serve, status):
    ask = serve()
    assert ask("/healthz")[:2] == (200, "ok\n")
    assert ask("/startupz")[:2] == (503, "waiting for iris\n")
    assert ask("/readyz")[:2] == (503, "waiting for iris\n")
    status.change("iris", checked_s=1.0)
    assert ask("/startupz")[0] == 200
    assert ask("/readyz")[0] == 503
    status.change("iris", ready=True)
    assert ask("/readyz")[:2] == (200, "ok\n")
    # What has started has started, whatever is configured later.
    status.configure([DELIVERY, DELIVERY._replace(name="other", destination="/other")])
    assert ask("/startupz")[0] == 200
    assert ask("/readyz")[:2] == (503, "waiting for other\n")


def test_what_is_kept_in_the_store_alone_says_so_in_the_place_of_a_folder(serve, status):
    status.configure([DELIVERY._replace(destination="")])
    assert "kept in the store" in serve()("/")[1]


def test_nothing_is_told_of_what_is_no_longer_declared(serve, status):
    status.configure([DELIVERY._replace(name="other")])
    status.change("iris", ready=True, version="v1")
    for event in (Retried("x", "y", 0.0), Progress(1, 1, 1, 1, 1.0), Failed("iris", "integrity", "x", "")):
        status.hear("iris", event)
    status.hear("iris", Evicted("s3://models/x", 1, "room is needed"))
    text = serve()("/metrics")[1]
    assert "iris" not in text
    assert "lading_store_evictions_total 1\n" in text


def test_it_listens_on_loopback_unless_told_otherwise():
    assert AgentSettings().listen == "127.0.0.1"


def test_nothing_but_what_is_documented_is_answered(serve):
    ask = serve()
    for path in ("/x", "/../etc/passwd", "/metrics/x", "///x", "/hooks/mlflow", "http://elsewhere/"):
        assert ask(path)[0] == 404, path
    for method in ("PUT", "DELETE", "CONNECT", "TRACE"):
        assert ask("/", method)[0] == 501, method
    assert ask("/", "POST")[0] == 404
    assert ask("/healthz", "HEAD")[:2] == (200, "")


def test_with_a_token_only_probes_are_open(serve, status, tmp_path):
    place = tmp_path / "token"
    place.write_text("t0ken\n")
    ask = serve(token_file=str(place))
    assert ask("/healthz")[0] == 200
    for path in ("/", "/metrics"):
        code, text, headers = ask(path)
        assert (code, headers["WWW-Authenticate"]) == (401, "Bearer")
        assert "iris" not in text
        assert ask(path, headers={"Authorization": "Bearer other"})[0] == 401
        assert ask(path, headers={"Authorization": "Bearer t0ken"})[0] == 200
    place.write_text("rotated")
    assert ask("/", headers={"Authorization": "Bearer t0ken"})[0] == 401
    assert ask("/", headers={"Authorization": "Bearer rotated"})[0] == 200
    # Neither an empty token nor a missing file opens the door.
    place.write_text("")
    assert ask("/", headers={"Authorization": "Bearer "})[0] == 401
    place.unlink()
    assert ask("/", headers={"Authorization": "Bearer rotated"})[0] == 401


def test_it_speaks_tls_with_the_certificate_as_it_is_now(serve, tmp_path):
    authorities = []
    for name in ("first", "second"):
        (tmp_path / name).mkdir()
        authorities.append(Authority(tmp_path / name))
    certificate, key = authorities[0].write_client(tmp_path, "127.0.0.1")
    context = ssl.create_default_context(cafile=authorities[0].bundle)
    ask = serve(certificate=certificate, key=key, context=context)
    assert ask("/healthz")[0] == 200
    authorities[1].write_client(tmp_path, "127.0.0.1")
    with pytest.raises(ssl.SSLCertVerificationError):
        ask("/healthz")
    context.load_verify_locations(authorities[1].bundle)
    assert ask("/healthz")[0] == 200


def test_a_certificate_that_cannot_be_used_and_a_port_that_is_taken_are_errors(status, serve, tmp_path):
    (tmp_path / "pem").write_text("x")
    with pytest.raises(UsageError, match="cannot be used"):
        serve(certificate=str(tmp_path / "pem"), key=str(tmp_path / "pem"))
    taken = serve().port
    with pytest.raises(UsageError, match=f"port {taken} of 127.0.0.1 is taken"):
        Endpoint(AgentSettings(port=taken), Deliveries(status, StoreSettings), take_webhook=lambda *_: False)


class _Elements(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.tags: set[str] = set()
        self.attributes: list[str] = []

    def handle_starttag(self, tag, attributes):
        self.tags.add(tag)
        self.attributes += [name for name, _ in attributes]


def test_the_page_shows_strangers_names_and_runs_nothing(serve, status):
    uri = f"https://user:pass@host/{HOSTILE.replace(chr(27), '')}?sig=secret"
    status.configure([Delivery("iris", uri, "/mnt/<b>")])
    status.change(
        "iris", ready=True, version=HOSTILE, pin=HOSTILE, waits=HOSTILE, code="x", error=HOSTILE, hint=HOSTILE, files=1
    )
    status.configuration_error = HOSTILE
    code, text, headers = serve()("/")
    assert code == 200
    elements = _Elements()
    elements.feed(text)
    assert not elements.tags & {"script", "b", "img", "iframe", "form", "link", "a"}
    assert not [name for name in elements.attributes if name.startswith("on") or name in ("src", "href", "style")]
    assert "&lt;script&gt;alert(1)" in text
    assert "\u202e" not in text
    assert "\x1b" not in text
    assert "secret" not in text
    assert "pass@" not in text
    assert "default-src 'none'" in headers["Content-Security-Policy"]
    assert "script-src" not in headers["Content-Security-Policy"]
    style = re.search("<style>(.*?)</style>", text, re.DOTALL)[1]
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    assert f"'sha256-{digest}'" in headers["Content-Security-Policy"]


def test_the_page_shows_progress_and_the_last_error_with_its_hint(serve, status):
    status.hear("iris", Progress(512, 1024, 0, 2, 1.0))
    status.change("iris", doing="delivering", code="not-found", error="there is none", hint="look again")
    text = serve()("/")[1]
    assert '<progress max="1024" value="512">' in text
    assert "error[not-found]: there is none" in text
    assert "look again" in text


def test_metrics_are_as_prometheus_reads_them(serve, status):
    status.hear("iris", Listed("x", 1, 10))
    for received in (4, 10, 10):
        status.hear("iris", Progress(received, 10, 0, 1, 1.0))
    status.hear("iris", Retried("x", "y", 1.0))
    status.hear("iris", Failed("iris", "integrity", "x", ""))
    status.change("iris", version='v"1\\\n', pin="p")
    status.change("iris", version="v2", pin="p")
    _, text, headers = serve()("/metrics")
    assert headers["Content-Type"].startswith("text/plain; version=0.0.4")
    samples = dict(line.rsplit(" ", 1) for line in text.splitlines() if not line.startswith("#"))
    assert samples['lading_received_bytes_total{delivery="iris"}'] == "10"
    assert samples['lading_retries_total{delivery="iris"}'] == "1"
    assert samples['lading_verification_failures_total{delivery="iris"}'] == "1"
    assert [name for name in samples if "version_info" in name] == [
        'lading_version_info{delivery="iris",version="v2",pin="p"}'
    ]
    for name in samples:
        metric = METRICS[name.partition("{")[0]]
        assert tuple(re.findall(r'(\w+)="', name)) == metric.labels
        assert metric.kind == ("counter" if name.partition("{")[0].endswith("_total") else "gauge")


def test_what_is_no_longer_in_place_is_no_longer_in_the_metrics(status):
    status.change("iris", version="v1", pin="p", signer="key sha256:1")
    assert {"lading_version_info{", "lading_signer_info{"} <= set(re.findall(r"\w+_info{", status.metrics.text()))
    status.change("iris", version="v2", signer="")
    assert "lading_signer_info{" not in status.metrics.text()
    status.change("iris", ready=False, version="", pin="")
    assert "lading_version_info{" not in status.metrics.text()


def test_labels_are_escaped():
    metrics = Metrics()
    metrics.only("lading_version_info", delivery="m", version='"} 1\n\\', pin="\udc80")
    assert '{delivery="m",version="\\"} 1\\n\\\\",pin="?"} 1\n' in metrics.text()


# ---- hints ----------------------------------------------------------------------------------

NOW_S = 1_800_000_000.0


def signed(body: bytes = b"{}", identifier: str = "id-1", moment: float = NOW_S, secret: bytes = b"s3cret"):
    content = f"{identifier}.{int(moment)}.".encode() + body
    signature = "v1," + base64.b64encode(hmac.digest(secret, content, hashlib.sha256)).decode()
    return {
        "X-MLflow-Delivery-Id": identifier,
        "X-MLflow-Timestamp": str(int(moment)),
        "X-MLflow-Signature": signature,
        "Content-Type": "application/json",
    }


@pytest.fixture
def webhooks(tmp_path):
    (tmp_path / "secret").write_text("s3cret\n")
    return Webhooks(str(tmp_path / "secret"), lambda: NOW_S, Metrics())


def lower(headers: dict[str, str]) -> dict[str, str]:
    return {name.lower(): value for name, value in headers.items()}


def test_a_signed_webhook_is_believed_once(serve, webhooks):
    ask = serve(take_webhook=webhooks.accept)
    assert ask("/hooks/mlflow", "POST", signed(), b"{}")[0] == 200
    assert ask("/hooks/mlflow", "POST", signed(), b"{}")[0] == 403
    assert ask("/hooks/mlflow", "POST", signed(identifier="id-2"), b"{}")[0] == 200


@pytest.mark.parametrize(
    ("headers", "body"),
    [
        ({}, b"{}"),
        (signed(), b"{} "),
        (signed(secret=b"other"), b"{}"),
        (signed(secret=b""), b"{}"),
        (signed(moment=NOW_S - 301), b"{}"),
        (signed(moment=NOW_S + 301), b"{}"),
        (signed(identifier=""), b"{}"),
        (signed(identifier="x" * 201), b"{}"),
        (signed() | {"X-MLflow-Timestamp": "1e9"}, b"{}"),
        (signed() | {"X-MLflow-Timestamp": "9" * 5000}, b"{}"),
        (signed() | {"X-MLflow-Signature": signed()["X-MLflow-Signature"].removeprefix("v1,")}, b"{}"),
        (signed() | {"X-MLflow-Signature": "v1,\u00ff"}, b"{}"),
    ],
)
def test_any_other_webhook_is_refused_and_not_told_why(webhooks, headers, body):
    assert not webhooks.accept(lower(headers), body)


def test_what_mlflow_itself_signs_is_believed(webhooks):
    # Computed by MLflow 3.17, mlflow.webhooks.delivery.
    headers = {
        "x-mlflow-delivery-id": "5f0c7f4e-9a57-4f0b-8c3f-0a2b1c3d4e5f",
        "x-mlflow-timestamp": "1800000000",
        "x-mlflow-signature": "v1,CQ1yNyf4TU5yA9qNfbAiBmUwUJcXP/GAN5ujrvr82eM=",
    }
    body = b'{"entity": "model_version", "action": "created", "data": {"name": "iris"}}'
    assert webhooks.accept(headers, body)
    assert not webhooks.accept(headers, body)


def test_without_a_secret_no_webhook_is_believed(tmp_path):
    for place in ("", str(tmp_path / "none")):
        assert not Webhooks(place, lambda: NOW_S, Metrics()).accept(lower(signed(secret=b"")), b"{}")
    (tmp_path / "empty").write_text("\n")
    assert not Webhooks(str(tmp_path / "empty"), lambda: NOW_S, Metrics()).accept(lower(signed(secret=b"")), b"{}")


def test_a_webhook_has_a_length_and_not_a_large_one(serve):
    ask = serve(take_webhook=lambda headers, body: pytest.fail("not reached"))
    assert ask("/hooks/mlflow", "POST", {"Transfer-Encoding": "chunked"}, None)[0] == 411
    assert ask("/hooks/mlflow", "POST", {"Content-Length": "-1"}, None)[0] == 411
    assert ask("/hooks/mlflow", "POST", {"Content-Length": str(2 << 20)}, None)[0] == 413


# ---- bounds ---------------------------------------------------------------------------------


def connect(port: int) -> socket.socket:
    return socket.create_connection(("127.0.0.1", port), timeout=20)


def test_who_says_nothing_or_little_by_little_is_left_and_threads_are_bounded(serve, monkeypatch):
    monkeypatch.setattr(endpoint_module, "_MOST_S", 0.5)
    ask = serve()
    before = threading.active_count()
    with contextlib.ExitStack() as stack:
        clients = [stack.enter_context(contextlib.closing(connect(ask.port))) for _ in range(40)]
        clients[0].sendall(b"GET / HT")
        answers = [client.recv(100) for client in clients]
        assert threading.active_count() <= before + 17
    # The first ones make room for the others, whose time is over soon.
    assert answers == [b""] * 40
    assert ask("/healthz")[0] == 200


def test_slow_clients_keep_no_probe_out(serve):
    ask = serve()
    with contextlib.ExitStack() as stack:
        for _ in range(24):
            stack.enter_context(contextlib.closing(connect(ask.port))).sendall(b"GET / HT")
        assert [ask("/healthz")[0] for _ in range(36)] == [200] * 36


def test_slow_handshakes_keep_no_probe_out_either(serve, tmp_path):
    certificate, key = Authority(tmp_path).write_client(tmp_path, "127.0.0.1")
    ask = serve(certificate=certificate, key=key, context=ssl._create_unverified_context())
    with contextlib.ExitStack() as stack:
        for _ in range(24):
            stack.enter_context(contextlib.closing(connect(ask.port))).sendall(b"\x16\x03\x01")
        assert ask("/healthz")[0] == 200


def test_while_every_thread_is_at_work_others_are_turned_away(serve, monkeypatch):
    monkeypatch.setattr(endpoint_module, "_MAKE_ROOM_S", 0.1)
    at_work, done = threading.Semaphore(0), threading.Event()

    def hint(headers, body):
        at_work.release()
        return done.wait(20)

    ask = serve(take_webhook=hint)
    with contextlib.ExitStack() as stack:
        for _ in range(16):
            client = stack.enter_context(contextlib.closing(connect(ask.port)))
            client.sendall(b"POST /hooks/mlflow HTTP/1.1\r\nContent-Length: 2\r\n\r\n{}")
            assert at_work.acquire(timeout=20)
        assert ask("/healthz")[0] == 503
        done.set()
    assert ask("/healthz")[0] == 200


def test_a_handshake_that_does_not_come_to_an_end_is_left_too(serve, monkeypatch, tmp_path):
    monkeypatch.setattr(endpoint_module, "_MOST_S", 0.2)
    certificate, key = Authority(tmp_path).write_client(tmp_path, "127.0.0.1")
    ask = serve(certificate=certificate, key=key, context=ssl._create_unverified_context())
    open_before = len(os.listdir("/proc/self/fd"))
    with contextlib.closing(connect(ask.port)) as client:
        client.sendall(b"\x16\x03\x01")
        started_s = time.monotonic()
        assert client.recv(100) == b""
        assert time.monotonic() - started_s < endpoint_module._STALL_S
    assert ask("/healthz")[0] == 200
    assert len(os.listdir("/proc/self/fd")) <= open_before


@pytest.mark.parametrize(
    "sent",
    [
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc",
        b"GET / HTTP/9.9\r\n\r\n",
        b"GET /" + b"a" * 70_000 + b" HTTP/1.1\r\n\r\n",
        b"GET / HTTP/1.1\r\n" + b"x: y\r\n" * 200 + b"\r\n",
        b"\r\n\r\n",
    ],
)
def test_what_is_no_request_ends_the_connection_and_nothing_else(serve, sent, capfd):
    ask = serve()
    with contextlib.closing(connect(ask.port)) as client:
        client.sendall(sent)
        client.shutdown(socket.SHUT_WR)
        answer = b""
        with contextlib.suppress(ConnectionError):
            while piece := client.recv(65536):
                answer += piece
    assert b"200 OK" not in answer
    assert ask("/healthz")[0] == 200
    assert capfd.readouterr() == ("", "")
