"""docs/when-it-fails.md, held to what lading says."""

import json
import re
import subprocess
import threading
from pathlib import Path

import pytest

from command_line import LADING, lading
from fakes.fake_s3 import FakeS3
from fakes.faulty_http import ALWAYS, ANYWHERE, anything, stall, status
from fakes.oms_signer import Signer
from fakes.trees import content
from lading import errors, events
from lading.telemetry.messages import sentence

PAGE = (Path(__file__).resolve().parents[2] / "docs/when-it-fails.md").read_text(encoding="utf-8")
IRIS = {"config.json": b"{}", "model.onnx": content(3000)}
S3 = "s3://models/iris"
GIB = 1 << 30


class Place:
    """Where a run happens: a bucket with a model, a destination, and a termination log."""

    def __init__(self, server, folder):
        self.server, self.bucket, self.models = server, FakeS3(server), str(folder / "models")
        for path, data in IRIS.items():
            self.bucket.put(f"iris/{path}", data)
        self._log = folder / "termination-log"
        self._log.touch()
        self.environ = {
            "AWS_ENDPOINT_URL": server.url,
            "AWS_ACCESS_KEY_ID": "AKIAEXAMPLE",
            "AWS_SECRET_ACCESS_KEY": "secret",
            "S3_MAX_ATTEMPTS": "1",
            "LADING_TERMINATION_LOG": str(self._log),
        }

    def init(self, *words, **environ):
        return lading("init", *words, environ=self.environ | environ)

    def bring(self, uri=S3, *options, **environ):
        return self.init(uri, self.models, *options, **environ)

    def url(self, name, data):
        return self.server.put(f"/{name}", data)

    @property
    def last_word(self):
        return self.named(self._log.read_text())

    def named(self, text):
        """With the same names for addresses and folders, and the same amounts, each time."""
        text = text.replace(self.server.url.partition("://")[2], "minio:9000").replace(self.models, "/mnt/models")
        return re.sub(r"[0-9.]+ .iB free", "64.4 GiB free", re.sub(r"after \d+ of", "after 1002 of", text))


@pytest.fixture
def place(server, tmp_path):
    return Place(server, tmp_path)


def an_odd_number(place):
    return place.init(S3)


def no_registry(place):
    return place.bring("model-registry://iris/v1")


def no_such_mode(place):
    return place.bring(LADING_VERIFY="always")


def no_prefix(place):
    return place.bring("s3://models/irsi")


def no_bucket(place):
    return place.bring("s3://modles/iris")


def forbidden(place):
    place.server.misbehave(ANYWHERE, status(403, times=ALWAYS, on=anything))
    return place.bring()


def unauthorized(place):
    url = place.url("model.bin", b"model")
    place.server.misbehave(ANYWHERE, status(401, times=ALWAYS, on=anything))
    return place.bring(url)


def unavailable(place):
    place.server.misbehave(ANYWHERE, status(503, times=ALWAYS, on=anything))
    return place.bring()


def nobody_there(place):
    return place.bring("http://127.0.0.1:9/model.bin")


def stalled(place):
    place.server.misbehave(place.bucket.path("iris/model.onnx"), stall(at=1000, times=ALWAYS))
    return place.bring(LADING_STALL_S="1")


def too_late(place):
    place.server.misbehave(place.bucket.path("iris/model.onnx"), stall(at=1000, times=ALWAYS))
    return place.bring(LADING_DEADLINE_S="1")


def changed(place):
    seeds = iter(range(1, 1000))
    replace = place.server.before(
        lambda: place.bucket.put("iris/model.onnx", content(3000, seed=next(seeds))), times=ALWAYS
    )
    place.server.misbehave(place.bucket.path("iris/model.onnx"), replace)
    return place.bring()


def another_digest(place):
    return place.bring(place.url("model.bin", b"model"), "--digest", f"sha256:{'0' * 64}")


def a_damaged_archive(place):
    return place.bring(place.url("model.tar.gz", b"\x1f\x8b\x08model"))


def too_large(place):
    place.bucket.put("iris/model.onnx", b"", claimed_bytes=10**12)
    return place.bring()


def nobody_vouches(place):
    return place.bring(place.url("model.bin", b"model"), "--verify", "strict")


def trusting(place, signer):
    key = Path(place.models).parent / "models.pub"
    key.write_bytes(signer.public_pem)
    return json.dumps({"trust": [{"prefix": "s3://models", "signature": {"key": str(key)}}]})


def not_signed(place):
    return place.bring(LADING_CONFIG_YAML=trusting(place, Signer()))


def not_named(place):
    signer = Signer()
    place.bucket.put("iris/model.sig", signer.sign({"config.json": IRIS["config.json"]}))
    return place.bring(LADING_CONFIG_YAML=trusting(place, signer))


FAILURES = [
    *(
        an_odd_number,
        no_registry,
        no_such_mode,
        no_prefix,
        no_bucket,
        forbidden,
        unauthorized,
        unavailable,
        nobody_there,
    ),
    *(stalled, too_late, changed, another_digest, a_damaged_archive, not_signed, not_named, too_large, nobody_vouches),
]


@pytest.mark.parametrize("failure", FAILURES, ids=lambda failure: failure.__name__)
def test_a_failure_is_on_the_page_under_its_exit_code(place, failure):
    outcome = failure(place)
    section = PAGE.partition(f"\n### {outcome.code}: ")[2].partition("\n### ")[0]
    assert f"\n    {place.last_word}\n" in section


def test_so_is_a_signal(place):
    place.server.misbehave(place.bucket.path("iris/model.onnx"), stall(at=1000))
    half = threading.Event()
    place.server.on_sent = lambda _, total: half.set() if total >= 1000 else None
    process = subprocess.Popen([*LADING, "init", S3, place.models], env=place.environ, stderr=subprocess.DEVNULL)
    assert half.wait(30)
    process.terminate()
    assert process.wait(30) == 143
    assert f"\n    {place.last_word}\n" in PAGE


def test_the_page_shows_no_other_failure():
    # One for each test above, and the defect that nobody can make on purpose.
    assert len(re.findall(r"^    error\[", PAGE, re.MULTILINE)) == len(FAILURES) + 2


def test_every_kind_and_exit_code_is_there():
    kinds = [errors.LadingError]
    for kind in kinds:
        kinds += kind.__subclasses__()
        assert re.search(rf"^### .*{kind.exit_code}\b.*: .*{kind.code}", PAGE, re.MULTILINE), kind


def test_what_success_leaves_is_there(place):
    assert place.bring().code == 0
    seconds = re.compile(r'"seconds": [0-9.]+')
    assert f"\n    {seconds.sub('', place.last_word)}\n" in seconds.sub("", PAGE)


LOG = [
    events.Resolved("model-registry://iris@champion", S3, "catalog", "v1"),
    events.Listed(S3, 9, 4 * GIB),
    events.Resumed(GIB),
    events.Retried("weights-3.bin", "minio:9000 sent nothing for 20 s", 2.0, 2, 6),
    events.Progress(int(2.5 * GIB), 4 * GIB, 5, 9, 10.0, GIB),
    events.Unverified(9, "config.json"),
    events.Delivered("/mnt/models", 9, 4 * GIB, 20.0, "sha256:0"),
]


@pytest.mark.parametrize("event", LOG, ids=lambda event: type(event).__name__)
def test_a_line_of_the_log_is_there(event):
    assert f"\n    {sentence(event)}\n" in PAGE


def test_json_lines_are_there(place):
    lines = [json.loads(line) for line in re.findall(r'^    (\{"time".*)$', PAGE, re.MULTILINE)]
    listed = place.bring(LADING_LOG_FORMAT="json").logs[0]
    missing = place.bring("s3://models/irsi", LADING_LOG_FORMAT="json").logs[0]
    assert lines == [listed | {"time": lines[0]["time"]}, missing | {"time": lines[1]["time"]}]
