"""Traces: what a collector is told of a delivery, and that a delivery does not depend on it."""

import json
import os
import subprocess
import sys
from contextlib import suppress

import pytest

from command_line import CATALOG, ENVIRONMENT, LADING, contents, write_model
from fakes.certificate_cases import BELIEVED
from fakes.fake_otlp import FakeOtlp
from fakes.faulty_http import ALWAYS, FaultyServer, anything, status
from fakes.nginx import free_port
from lading import events
from lading.cli.main import main
from lading.errors import Interrupted, LadingError, NotFound
from lading.settings.limits import Network
from lading.settings.traces import Traces
from lading.telemetry.otlp import sending
from lading.telemetry.trace import Trace, traced

# The mark is in every secret there is; it must be nowhere in what is sent.
MARK = "s3cret"
PARENT = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"


@pytest.fixture
def collector():
    with FaultyServer() as server:
        yield FakeOtlp(server)


@pytest.fixture
def run(collector, monkeypatch, capsys):
    """Run a command with these variables, and the collector's address; gives the exit code and what it says."""

    def call(*argv: object, **variables: str) -> tuple[int, str]:
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", collector.url)
        monkeypatch.setenv("S3_MAX_ATTEMPTS", "2")
        for name, value in variables.items():
            monkeypatch.setenv(name, value)
        code = main([str(word) for word in argv])
        return code, capsys.readouterr().err

    return call


@pytest.fixture
def origin(tmp_path):
    return write_model(tmp_path / "origin")


def without_gaps(told) -> bool:
    """Whether its steps follow each other, and lie in it."""
    spans = [child.span for child in told.children]
    ends = [told.span.start_time_unix_nano, *(span.end_time_unix_nano for span in spans)]
    begins = [*(span.start_time_unix_nano for span in spans), told.span.end_time_unix_nano]
    return all(end == begin for end, begin in zip(ends[:-1], begins[:-1], strict=True)) and ends[-1] <= begins[-1]


# ---- what is told ------------------------------------------------------------------------


def test_a_delivery_is_a_span_and_its_steps_are_the_spans_in_it(run, collector, server, tmp_path):
    uri = server.put("/model.bin", b"model" * 1000)
    assert run("pull", uri, tmp_path / "dest")[0] == 0
    told = collector.trace()
    assert told.name == "deliver"
    assert told.steps == ["list", "transfer", "publish"]
    assert without_gaps(told)
    assert told.error is None
    digest = told.attributes.pop("lading.digest")
    assert told.attributes | {"lading.digest": digest} == {
        "url.full": uri,
        "url.scheme": "http",
        "lading.resolved": uri,
        "lading.files": 1,
        "lading.size_bytes": 5000,
        "lading.received_bytes": 5000,
        "lading.retries": 0,
        "lading.digest": told.step("publish").attributes["lading.digest"],
    }
    assert told.step("list").attributes == {"lading.uri": uri, "lading.files": 1, "lading.size_bytes": 5000}
    assert told.step("transfer").attributes["lading.done_bytes"] == 5000
    assert told.step("publish").attributes["lading.destination"] == str(tmp_path / "dest")
    assert told.resource["service.name"] == "lading"


def test_a_name_is_resolved_first(run, collector, tmp_path):
    assert run("pull", "model-registry://iris/v1", tmp_path / "dest", "--catalog", CATALOG)[0] == 0
    told = collector.trace()
    assert told.steps == ["resolve", "list", "transfer", "publish"]
    assert told.attributes["lading.registry"] == "catalog"
    assert told.attributes["lading.version"] == "v1"
    assert told.attributes["url.full"] == "model-registry://iris/v1"
    assert told.attributes["lading.resolved"].endswith("/iris/v1")


def test_several_models_are_one_trace(run, collector, tmp_path):
    pairs = [write_model(tmp_path / "one"), tmp_path / "a", write_model(tmp_path / "two"), tmp_path / "b"]
    assert run("init", *pairs)[0] == 0
    told = collector.trace()
    assert told.steps == ["list", "list", "transfer", "publish", "publish"]
    assert [step.attributes["lading.uri"] for step in told.children[:2]] == [
        str(tmp_path / "one"),
        str(tmp_path / "two"),
    ]
    assert told.attributes["lading.files"] == 6
    assert "url.full" not in told.attributes


def test_what_is_there_already_is_compared_and_not_transferred(run, collector, origin, tmp_path):
    for _ in range(2):
        run("pull", origin, tmp_path / "dest")
    _, second = collector.traces()
    assert second.steps == ["list", "compare"]
    assert second.attributes["lading.received_bytes"] == 0


def test_a_store_hit_is_told(run, collector, origin, tmp_path):
    for name in ("a", "b"):
        run("pull", origin, tmp_path / name, LADING_STORE=str(tmp_path / "store"))
    cold, warm = collector.traces()
    assert (cold.steps, cold.attributes["lading.store_hit"]) == (["list", "transfer", "materialize", "publish"], False)
    assert (warm.steps, warm.attributes["lading.store_hit"]) == (["list", "materialize", "publish"], True)
    assert warm.attributes["lading.received_bytes"] == 0
    assert without_gaps(cold)
    assert without_gaps(warm)


def test_retries_are_counted_and_noted_where_they_happened(run, collector, server, tmp_path):
    uri = server.put("/model.bin", b"model" * 1000)
    server.misbehave("/model.bin", status(503, times=1))
    assert run("pull", uri, tmp_path / "dest")[0] == 0
    told = collector.trace()
    assert told.attributes["lading.retries"] == 1
    assert "503" in told.step("transfer").notes["Retried"]["lading.why"]
    assert told.error is None


def test_an_error_is_told_with_its_code_and_where_it_happened(run, collector, server, tmp_path):
    code, said = run("pull", f"{server.url}/missing", tmp_path / "dest")
    told = collector.trace()
    assert code == 3
    assert told.error == told.step("list").error
    assert told.error[0] == "not-found"
    assert told.error[1] in said


def test_an_error_while_bytes_move_is_one_of_the_transfer(run, collector, server, tmp_path):
    uri = server.put("/model.bin", b"model" * 1000)
    server.misbehave("/model.bin", status(403, times=ALWAYS))
    assert run("pull", uri, tmp_path / "dest")[0] == 4
    told = collector.trace()
    assert told.error[0] == "not-allowed"
    assert [step.error for step in told.children] == [None, told.error]
    assert told.steps == ["list", "transfer"]


@pytest.mark.parametrize("variable", ["OTEL_EXPORTER_OTLP_CERTIFICATE", "REQUESTS_CA_BUNDLE", "AWS_CA_BUNDLE"])
def test_a_collector_with_a_private_ca_is_believed_as_any_server_is(run, origin, tmp_path, variable):
    case = BELIEVED["no key identifiers and no key usage"](tmp_path)
    with FaultyServer(case.server, "localhost") as server:
        secure = FakeOtlp(server)
        code, said = run(
            "pull", origin, tmp_path / "dest", OTEL_EXPORTER_OTLP_ENDPOINT=secure.url, **{variable: case.bundle}
        )
        assert (code, secure.trace().name) == (0, "deliver"), said


def test_a_collector_that_is_not_trusted_fails_nothing(run, origin, tmp_path):
    case = BELIEVED["no key identifiers and no key usage"](tmp_path)
    with FaultyServer(case.server, "localhost") as server:
        code, said = run("pull", origin, tmp_path / "dest", OTEL_EXPORTER_OTLP_ENDPOINT=FakeOtlp(server).url)
    assert code == 0
    assert "does not take it" in said


def test_names_that_are_no_unicode_are_escaped(collector):
    wanted = Traces(f"{collector.url}/v1/traces")
    with sending(wanted, pytest.fail, {}, Network()) as send, traced(send, ["/model"], events.ignore) as tell:
        tell(events.Unverified(1, os.fsdecode(b"a\xff\x1b.bin")))
    assert collector.trace().notes["Unverified"]["lading.example"] == "a\\udcff\\x1b.bin"


# ---- who asked for it --------------------------------------------------------------------


def test_the_span_belongs_to_who_started_the_process(run, collector, origin, tmp_path):
    run("pull", origin, tmp_path / "dest", TRACEPARENT=PARENT, TRACESTATE="vendor=value")
    span = collector.trace().span
    assert (span.trace_id.hex(), span.parent_span_id.hex()) == tuple(PARENT.split("-")[1:3])
    assert span.trace_state == "vendor=value"


def test_a_parent_that_is_none_begins_a_trace_and_one_that_is_not_sampled_none(run, collector, origin, tmp_path):
    run("pull", origin, tmp_path / "dest", TRACEPARENT="00-nonsense-01")
    assert not collector.trace().span.parent_span_id
    code, said = run("pull", origin, tmp_path / "dest", TRACEPARENT=PARENT[:-1] + "0")
    assert (code, "warning" in said) == (0, False)
    assert len(collector.traces()) == 1


@pytest.mark.parametrize(
    ("variables", "name"),
    [
        ({"OTEL_SERVICE_NAME": "iris-init"}, "iris-init"),
        ({"OTEL_RESOURCE_ATTRIBUTES": "service.name=iris,k8s.namespace.name=prod"}, "iris"),
        ({"OTEL_RESOURCE_ATTRIBUTES": "service.name=iris", "OTEL_SERVICE_NAME": "own"}, "own"),
    ],
)
def test_the_service_is_called_as_the_variables_say(run, collector, origin, tmp_path, variables, name):
    run("pull", origin, tmp_path / "dest", **variables)
    assert collector.trace().resource["service.name"] == name


def test_the_endpoint_for_traces_is_taken_as_it_is(run, collector, origin, tmp_path):
    collector.server.routes["/own"] = collector.server.routes["/v1/traces"]
    address = {
        "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": f"{collector.url}/own",
        "OTEL_EXPORTER_OTLP_ENDPOINT": "http://none:1",
    }
    assert "warning" not in run("pull", origin, tmp_path / "dest", **address)[1]
    assert [request.path for request in collector.server.requests] == ["/own"]


@pytest.mark.parametrize(
    "variables",
    [
        {"OTEL_EXPORTER_OTLP_ENDPOINT": ""},
        {"OTEL_SDK_DISABLED": "TRUE"},
        {"OTEL_TRACES_EXPORTER": "none"},
        {"OTEL_TRACES_EXPORTER": "console, zipkin"},
    ],
)
def test_nothing_is_sent_unless_it_is_asked_for(run, collector, origin, tmp_path, variables):
    assert "warning" not in run("pull", origin, tmp_path / "dest", **variables)[1]
    assert collector.server.requests == []


@pytest.mark.parametrize("variables", [{"OTEL_SDK_DISABLED": "1"}, {"OTEL_TRACES_EXPORTER": "console,otlp"}])
def test_only_what_the_specification_says_turns_it_off(run, collector, origin, tmp_path, variables):
    run("pull", origin, tmp_path / "dest", **variables)
    assert collector.trace().name == "deliver"


def test_who_does_not_ask_for_it_loads_nothing_for_it(origin, tmp_path):
    code = f"from lading.cli.main import main; main(['pull', {str(origin)!r}, {str(tmp_path / 'dest')!r}])"
    code += "\nimport sys, threading\nprint(' '.join(sys.modules), threading.active_count())"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env={})
    *loaded, threads = done.stdout.split()
    assert "lading.deliver" in loaded
    assert not {name for name in loaded if name.startswith("opentelemetry")} | (
        {"lading.telemetry.otlp", "lading.telemetry.trace"} & set(loaded)
    )
    assert threads == "1"


# ---- what goes wrong ---------------------------------------------------------------------


@pytest.mark.parametrize(
    ("variables", "why"),
    [
        (
            {"OTEL_EXPORTER_OTLP_ENDPOINT": f"http://user:{MARK}@127.0.0.1:1"},
            "http://***@127.0.0.1:1/v1/traces does not",
        ),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": f"user:{MARK}@collector:4318"}, "no URL (write http://host:4318)"),
        ({"OTEL_EXPORTER_OTLP_PROTOCOL": "grpc"}, "grpc is asked for (set OTEL_EXPORTER_OTLP_TRACES_PROTOCOL"),
        ({"OTEL_SPAN_EVENT_COUNT_LIMIT": MARK}, "OpenTelemetry fails with ValueError"),
    ],
)
def test_a_collector_that_cannot_be_told_is_one_warning(run, origin, tmp_path, monkeypatch, variables, why):
    monkeypatch.setattr("lading.telemetry.otlp._SEND_S", 0.3)
    code, said = run("pull", origin, tmp_path / "dest", **variables)
    (warning,) = [line for line in said.splitlines() if "warning" in line]
    assert code == 0
    assert warning.startswith("warning: no trace is sent: ")
    assert why in warning
    assert MARK not in said
    assert said.count("\n") == 4
    assert contents(tmp_path / "dest") == contents(origin)


@pytest.mark.parametrize("name", ["OTEL_EXPORTER_OTLP_HEADERS", "OTEL_EXPORTER_OTLP_TRACES_HEADERS"])
def test_headers_do_not_go_to_a_far_collector_unencrypted(run, collector, origin, tmp_path, name):
    far = {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://far.example.com", "HTTP_PROXY": collector.url, "NO_PROXY": ""}
    collector.server.routes["/"] = collector.server.routes["/v1/traces"]
    code, said = run("pull", origin, tmp_path / "dest", **far, **{name: f"api-key={MARK}"})
    (warning,) = [line for line in said.splitlines() if "warning" in line]
    assert (code, MARK in said, collector.server.requests) == (0, False, [])
    assert f"{name} would be sent unencrypted to http://far.example.com" in warning
    assert contents(tmp_path / "dest") == contents(origin)


def test_headers_go_to_a_near_collector_and_spans_without_them_to_any(run, collector, origin, tmp_path):
    run("pull", origin, tmp_path / "one", OTEL_EXPORTER_OTLP_HEADERS=f"api-key={MARK}")
    far = {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://far.example.com", "HTTP_PROXY": collector.url, "NO_PROXY": ""}
    collector.server.routes["/"] = collector.server.routes["/v1/traces"]
    run("pull", origin, tmp_path / "two", **far, OTEL_EXPORTER_OTLP_HEADERS="")
    assert [request.headers.get("api-key") for request in collector.server.requests] == [MARK, None]


@pytest.mark.parametrize("answer", [400, 401, 404, 503])
def test_a_collector_that_refuses_is_one_warning(run, collector, origin, tmp_path, monkeypatch, answer):
    monkeypatch.setattr("lading.telemetry.otlp._SEND_S", 0.3)
    collector.server.misbehave("/v1/traces", status(answer, MARK.encode(), on=anything, times=ALWAYS))
    code, said = run("pull", origin, tmp_path / "dest")
    assert code == 0
    assert said.count("warning") == 1
    assert MARK not in said


def test_a_collector_that_does_not_answer_is_not_waited_for(run, collector, origin, tmp_path, monkeypatch):
    monkeypatch.setattr("lading.telemetry.otlp._PATIENCE_S", 0.5)
    collector.server.routes["/v1/traces"] = lambda _: collector.server.closing.wait(20)
    code, said = run("pull", origin, tmp_path / "dest")
    assert code == 0
    assert "has not taken it within 0.5 s" in said


def test_without_the_extra_one_warning_says_how_to_install_it(run, collector, origin, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "opentelemetry.exporter.otlp.proto.http.trace_exporter", None)
    code, said = run("pull", origin, tmp_path / "dest", "--log-format", "json")
    (warning,) = [each for each in map(json.loads, said.splitlines()) if each["event"] == "NotTraced"]
    assert code == 0
    assert warning["hint"] == "pip install 'lading[otel]'"
    assert contents(tmp_path / "dest") == contents(origin)
    assert collector.server.requests == []


def test_a_delivery_that_fails_ends_with_its_own_error(run, collector, tmp_path, monkeypatch):
    monkeypatch.setattr("lading.telemetry.otlp._SEND_S", 0.3)
    code, said = run("pull", tmp_path / "missing", tmp_path / "dest", OTEL_EXPORTER_OTLP_ENDPOINT="http://127.0.0.1:1")
    assert code == 3
    assert [line.partition(":")[0] for line in said.splitlines()][:2] == ["warning", "error[not-found]"]


# ---- what is not told --------------------------------------------------------------------


@pytest.mark.parametrize("answer", [200, 302, 403, 404, 418, 503])
def test_no_secret_is_in_what_is_sent(run, collector, server, tmp_path, answer):
    server.put("/model.bin", b"model" * 1000)
    if answer != 200:
        about = {"Location": f"ftp://user:{MARK}@h/?token={MARK}", "Retry-After": "0", "WWW-Authenticate": MARK}
        server.misbehave("/model.bin", status(answer, MARK.encode(), headers=about, on=anything, times=ALWAYS))
    uri = server.url.replace("http://", f"http://user:{MARK}@") + f"/model.bin?token={MARK}#sig={MARK}"
    variables = {
        "OTEL_EXPORTER_OTLP_HEADERS": f"x-api-key={MARK}",
        "OTEL_EXPERIMENTAL_RESOURCE_DETECTORS": "otel,process",
        "AWS_SECRET_ACCESS_KEY": MARK,
        "localhost-headers": json.dumps({"X-Api-Key": MARK}),
        "OTEL_EXPORTER_OTLP_COMPRESSION": "gzip",
    }
    assert (run("pull", uri, tmp_path / "dest", **variables)[0] == 0) is (answer == 200)
    assert collector.trace().attributes["url.full"].startswith("http://***@127.0.0.1")
    assert (collector.trace().error is None) is (answer == 200)
    assert collector.raw
    assert all(MARK.encode() not in body for body in collector.raw)
    # Only to whom it is for.
    assert {request.headers["x-api-key"] for request in collector.server.requests} == {MARK}


def test_what_nobody_foresaw_is_told_by_its_kind_alone():
    sent = []
    with pytest.raises(KeyError), traced(sent.append, ["/model"], events.ignore):
        raise KeyError(MARK)
    assert (sent[0].error_type, sent[0].error) == ("internal", "KeyError")


# ---- steps from events -------------------------------------------------------------------


def test_waiting_is_a_step_that_ends_with_the_next_news():
    sent = []
    with traced(sent.append, ["/model"], events.ignore) as tell:
        tell(events.Listed("/model", 1, 5))
        tell(events.WaitingForStore("/model", 1, 5))
        tell(events.WaitingForStore("/model", 3, 5))
        tell(events.Materialized("/dest", "1 by link", 5, 0.0))
        tell(events.Delivered("/dest", 1, 5, 0.1, "sha256:00"))
    assert [step.name for step in sent[0].children] == ["list", "wait", "materialize", "publish"]
    assert sent[0].attributes["lading.store_hit"]


def test_a_second_listing_ends_the_transfer_before_it():
    sent = []

    def deliver() -> None:
        with traced(sent.append, ["/model"], events.ignore) as tell:
            tell(events.Listed("/model", 1, 5))
            tell(events.Progress(3, 5, 0, 1, 0.1))
            tell(events.Retried("the listing", "changed", 0.0))
            tell(events.Listed("/model", 1, 6))
            tell(events.Progress(6, 6, 0, 1, 0.1))
            raise NotFound("gone")

    with pytest.raises(NotFound):
        deliver()
    assert [step.name for step in sent[0].children] == ["list", "transfer", "list", "transfer"]
    assert [step.error_type for step in sent[0].children] == ["", "", "", "not-found"]
    assert sent[0].attributes["lading.received_bytes"] == 9


def test_resumed_and_damaged_bytes_are_counted_once():
    sent = []
    with traced(sent.append, ["/model"], events.ignore) as tell:
        for done in (4, 9, 6, 10):
            tell(events.Progress(done, 10, 0, 1, 0.1, resumed_bytes=4))
    assert sent[0].attributes["lading.received_bytes"] == 5 + 4


def cycle_with(*told: events.Event, error: BaseException | None = None) -> list:
    """What is sent of a cycle in which this happens."""
    sent = []
    trace = Trace(["s3://models/iris"], "iris")

    @trace.sent(sent.append)
    def take() -> None:
        for event in told:
            trace.hear(event)
        if error:
            raise error

    with suppress(LadingError, Interrupted):
        take()
    return sent


LISTED = events.Listed("s3://models/iris", 1, 5)


def test_a_turn_that_finds_nothing_new_is_no_trace():
    assert cycle_with(LISTED) == []
    assert cycle_with(LISTED, error=Interrupted("stopped")) == []


def test_a_turn_that_puts_another_version_in_place_is_a_trace():
    delivered = events.Delivered("/dest", 1, 5, 0.1, "sha256:00")
    (cycle,) = cycle_with(
        LISTED, LISTED, delivered, events.Switched("iris", "v2", "v1"), events.Loaded("iris", "v2", 1.0)
    )
    assert [step.name for step in cycle.children] == ["list", "list", "publish", "switch", "load"]
    assert (cycle.name, cycle.error_type, cycle.attributes["lading.delivery"]) == ("cycle", "", "iris")


def test_a_turn_whose_version_is_refused_is_an_error_although_it_ends_well():
    refused = events.RolledBack("iris", "v2", "v1", "it does not load", 60.0)
    (cycle,) = cycle_with(events.Switched("iris", "v2", "v1"), refused)
    assert [step.error_type for step in cycle.children] == ["", "refused"]
    assert (cycle.error_type, cycle.error) == ("refused", "it does not load")


def test_a_turn_that_fails_is_a_trace():
    (cycle,) = cycle_with(error=NotFound("there is no such model"))
    assert [(step.name, step.error_type) for step in cycle.children] == [("list", "not-found")]


def test_the_agent_sends_a_trace_for_a_turn_with_an_outcome_and_under_nobodys_span(collector, origin, tmp_path):
    deliveries = [
        {"name": "iris", "uri": str(origin), "destination": str(tmp_path / "models/iris"), "every_s": 1},
        {"name": "lost", "uri": str(tmp_path / "nowhere"), "destination": str(tmp_path / "models/lost")},
    ]
    (tmp_path / "lading.yaml").write_text(json.dumps({"deliveries": deliveries, "agent": {"port": free_port()}}))
    variables = {"LADING_CONFIG": str(tmp_path / "lading.yaml"), "OTEL_EXPORTER_OTLP_ENDPOINT": collector.url}
    with subprocess.Popen([*LADING, "agent"], env=ENVIRONMENT | variables | {"TRACEPARENT": PARENT}) as agent:
        assert collector.server.wait_for_request("/v1/traces", 30, count=2)
        agent.terminate()
    told = {each.attributes["lading.delivery"]: each for each in collector.traces()}
    assert {each.name for each in told.values()} == {"cycle"}
    assert told["iris"].steps[-2:] == ["publish", "switch"]
    assert told["iris"].error is None
    assert told["lost"].error[0] == "not-found"
    assert not any(each.span.parent_span_id for each in told.values())
