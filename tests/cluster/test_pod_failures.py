"""What a user sees in the cluster when a delivery fails: exit code, message and `kubectl describe`, as docs/when-it-fails.md has them."""

import os
import re
import signal
from pathlib import Path

import pytest

from cluster.api import named
from cluster.models import IRIS
from cluster.place import last_end
from cluster.test_wirings import KEYS, MODELS, digests, secret, service, told
from fakes.fake_s3 import FakeS3
from fakes.faulty_http import ALWAYS, wrong_byte
from fakes.trees import content

PAGE = (Path(__file__).parents[2] / "docs/when-it-fails.md").read_text()
KINDS = dict(re.findall(r"^### (\d+)(?:, \d+)?: (.+)$", PAGE, re.MULTILINE))
MIB = 1 << 20
BIG = content(24 * MIB)


@pytest.fixture
def bucket(server, publish, place):
    """A bucket that pods reach as s3.NAMESPACE.svc:9000, and how it misbehaves."""
    bucket = FakeS3(server)
    bucket.host = publish("s3", place.name, 9000, server.url)
    for path, data in IRIS.items():
        bucket.put(f"iris/{path}", data)
    return bucket


def keys(bucket):
    annotations = {"s3-endpoint": bucket.host, "s3-usehttps": "0", "s3-region": "us-east-1"}
    return secret("s3", KEYS["stringData"], **annotations)


@pytest.fixture
def start(place, kserve, bucket):
    """The pod of a service whose model is in the bucket; ``variables`` are the storage initializer's."""

    def start(uri="s3://models/iris", *, variables=(), name="iris", change=lambda template: None):
        login = keys(bucket)
        place.apply(login, MODELS)
        (template,) = kserve(login, MODELS).pods(service(uri)).values()
        (init,) = template["spec"]["initContainers"]
        init["env"] += [{"name": key, "value": value} for key, value in dict(variables).items()]
        change(template)
        return place.start(name, template)

    return start


def as_documented(place, pod, code, kind):
    """The end of the container, which is what the page promises and `kubectl describe` shows."""
    ended = place.failed(pod)
    assert ended["exitCode"] == code, ended
    assert ended["message"].startswith(f"error[{kind}]: "), ended
    assert kind in KINDS[str(code)]
    described = place.describe(pod)
    assert re.search(rf"Exit Code: +{code}\n", described)
    assert ended["message"] in described
    return ended["message"]


def test_a_wrong_uri(place, start):
    message = as_documented(place, start("s3://models/irsi"), 3, "not-found")
    assert message == "error[not-found]: s3://models/irsi has no files (did you mean iris/?)"


def test_a_wrong_key(place, kserve, buckets):
    wrong = secret("s3", {"AWS_ACCESS_KEY_ID": "AKIAEXAMPLE", "AWS_SECRET_ACCESS_KEY": "se-cret"}, **_annotations(KEYS))
    place.apply(wrong, MODELS)
    (template,) = kserve(wrong, MODELS).pods(service("s3://models/iris")).values()
    pod = place.start("iris", template)
    message = as_documented(place, pod, 4, "not-allowed")
    assert "se-cret" not in message + place.describe(pod) + place.log(pod)


def _annotations(thing):
    return {key.removeprefix("serving.kserve.io/"): value for key, value in thing["metadata"]["annotations"].items()}


def test_a_variable_that_is_none(place, start):
    as_documented(place, start(variables={"LADING_DEADLINE_S": "soon"}), 2, "usage")


def test_a_registry_that_is_away(place, start, server):
    server.__exit__()
    message = as_documented(place, start(variables={"S3_MAX_ATTEMPTS": "1"}), 5, "unavailable")
    assert "cannot connect to s3." in message


def test_a_damaged_model(place, start, bucket, server):
    server.misbehave(bucket.path("iris/data/a.bin"), wrong_byte(100, times=ALWAYS))
    as_documented(place, start(), 6, "integrity")


def test_a_volume_that_is_too_small(place, start, bucket):
    bucket.put("iris/big.bin", BIG)

    def in_memory(template):
        (volume,) = template["spec"]["volumes"]
        volume["emptyDir"] = {"medium": "Memory", "sizeLimit": "8Mi"}

    as_documented(place, start(change=in_memory), 7, "no-space")


def test_a_scheme_that_is_none(place, start):
    as_documented(place, start(change=lambda template: _argument(template, "ftp://models/iris")), 8, "unsupported")


def _argument(template, uri):
    template["spec"]["initContainers"][0]["args"][0] = uri


def test_more_than_the_ephemeral_storage_that_is_allowed(place, start, bucket, api):
    """The kubelet evicts; from inside it is not seen, and so not told before."""
    bucket.put("iris/big.bin", BIG)
    bucket.server.pace_bytes_s = 4 * MIB

    def limited(template):
        for one in (*template["spec"]["initContainers"], *template["spec"]["containers"]):
            one["resources"] = {"limits": {"ephemeral-storage": "8Mi"}, "requests": {"ephemeral-storage": "1Mi"}}

    pod = start(change=limited)
    assert "ephemeral local storage usage exceeds the total limit of containers 8Mi" in evicted(api, pod)
    assert "Evicted" in place.describe(pod)


def test_a_memory_limit_that_is_too_small_for_python(place, start):
    def limited(template):
        template["spec"]["initContainers"][0]["resources"] = {"limits": {"memory": "12Mi"}}

    ended = place.failed(start(change=limited))
    assert (ended["exitCode"], ended["reason"]) == (137, "OOMKilled")


def test_a_large_model_with_the_memory_that_the_page_promises(place, start, bucket):
    bucket.put("iris/big.bin", BIG)

    def limited(template):
        template["spec"]["initContainers"][0]["resources"] = {"limits": {"memory": "64Mi"}}

    pod = place.ready(start(change=limited))
    assert told(pod)["bytes"] > len(BIG)


def half_way(bucket, place, start):
    """A pod that has half of a large model, and whose origin sends no more for now."""
    bucket.put("iris/big.bin", BIG)
    bucket.server.pace_bytes_s = 6 * MIB
    pod = start()
    assert bucket.server.wait_for_sent(len(BIG) // 2, 60)
    return pod


def process_of(cluster, api, pod):
    """The machine's number of the storage initializer's process."""
    (status,) = api.get(pod)["status"]["initContainerStatuses"]
    name = status["containerID"].rpartition("/")[2]
    (process,) = [one for one in cluster.processes() if name in _groups(one)][:1]
    return process


def _groups(process):
    """The control groups of a process, as /proc has them; "" if it has ended meanwhile."""
    try:
        return Path(f"/proc/{process}/cgroup").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return ""


def test_a_container_that_is_killed_half_way_resumes_in_the_same_volume(place, start, bucket, api, cluster):
    pod = half_way(bucket, place, start)
    os.kill(process_of(cluster, api, pod), signal.SIGKILL)
    ended = place.failed(pod)
    assert (ended["exitCode"], ended["reason"]) == (137, "Error")
    bucket.server.pace_bytes_s = float("inf")
    again = api.until(pod, lambda thing: last_end(thing).get("exitCode") == 0)
    assert again["status"]["initContainerStatuses"][0]["restartCount"] == 1
    assert "resumed: " in place.log(pod)
    # At most some 4 MiB of what had landed, for each connection, and never all of it.
    assert bucket.server.sent_bytes < 2 * len(BIG)
    ready = place.ready(pod)
    assert place.ask(ready, "/files") == digests(("/mnt/models", {**IRIS, "big.bin": BIG}))


def test_a_limit_of_processes_slows_a_delivery_and_does_not_end_it(place, start, bucket, api, cluster):
    pod = half_way(bucket, place, start)
    process = process_of(cluster, api, pod)
    group = re.search(r"^\d+:(?:pids)?:(/\S*lading-cluster\S*)$", _groups(process), re.MULTILINE)[1]
    (limit,) = [
        root / group.lstrip("/") / "pids.max" for root in _roots() if (root / group.lstrip("/") / "pids.max").exists()
    ]
    limit.write_text("1")
    bucket.server.pace_bytes_s = float("inf")
    ready = place.ready(pod)
    assert ready["status"]["initContainerStatuses"][0]["restartCount"] == 0


def _roots():
    return (Path("/sys/fs/cgroup/pids"), Path("/sys/fs/cgroup"))


def evicted(api, pod):
    """What the kubelet said as it ended the pod: on the page, but for amounts, and for the containers that it names last."""
    found = api.until(pod, lambda thing: thing.get("status", {}).get("reason") == "Evicted", 240)
    message = found["status"]["message"].strip()
    assert without_amounts(message.partition(" Container ")[0]) in without_amounts(PAGE)
    return message


def without_amounts(text):
    return re.sub(r"-?\b\d+(Ki|Mi|Gi)?\b", "N", text)


@pytest.fixture
def pressed(api):
    """The node, once it says that it is short of something; it takes pods again when the test is over."""
    node = named("Node", "node1")

    def under_pressure(thing):
        return {one["type"] for one in thing["status"]["conditions"] if one["status"] == "True"} - {"Ready"}

    yield lambda: under_pressure(api.until(node, under_pressure))
    api.until(node, lambda thing: not under_pressure(thing) and not thing["spec"].get("taints"))


def test_a_node_that_is_short_of_processes_evicts_the_pod(place, start, bucket, api, cluster, pressed):
    pod = half_way(bucket, place, start)
    with cluster.hardly_any_tasks():
        assert pressed() == {"PIDPressure"}
        assert "The node was low on resource: pids. Threshold quantity: " in evicted(api, pod)
        assert "Evicted" in place.describe(pod)


def test_a_node_whose_disk_others_fill_evicts_the_pod(place, start, bucket, api, cluster, pressed):
    pod = half_way(bucket, place, start)
    with cluster.full_disk():
        assert pressed() == {"DiskPressure"}
        message = evicted(api, pod)
    assert "The node was low on resource: ephemeral-storage. Threshold quantity: " in message


def test_a_model_that_is_larger_than_the_disk_of_the_node(place, start, bucket):
    """It is said before a byte is fetched, and before the kubelet would evict."""
    bucket.put("iris/huge.bin", b"", claimed_bytes=100 << 30)
    message = as_documented(place, start(), 7, "no-space")
    assert message.startswith("error[no-space]: /mnt/models needs 100.0 GiB more and has ")
    assert bucket.server.sent_bytes < MIB


def test_a_pod_that_is_deleted_half_way_ends_at_once_and_another_begins_anew(place, start, bucket, api):
    pod = half_way(bucket, place, start)
    api.delete(pod)
    ended = api.until(pod, lambda thing: not thing or last_end(thing), 30)
    if ended:
        assert last_end(ended)["exitCode"] in (130, 143), last_end(ended)
    api.until_gone(pod)
    bucket.server.pace_bytes_s = float("inf")
    ready = place.ready(start())
    assert place.ask(ready, "/files") == digests(("/mnt/models", {**IRIS, "big.bin": BIG}))


def test_a_name_server_that_is_away_for_a_while_is_waited_for(place, start, names):
    names.there = False
    asked = names.asked
    try:
        pod = start()
        assert names.wait_for_question(asked + 1, 60)
    finally:
        names.there = True
    place.ready(pod)


def test_a_pod_that_cannot_pull_the_image_says_which(place, start, api):
    def elsewhere(template):
        template["spec"]["initContainers"][0]["image"] = "image-not-set.invalid/lading"

    pod = start(change=elsewhere)

    def waits(thing):
        (status,) = thing.get("status", {}).get("initContainerStatuses", [{"state": {}}])
        return status["state"].get("waiting", {}).get("reason") in ("ErrImagePull", "ImagePullBackOff")

    api.until(pod, waits)
    assert "image-not-set.invalid/lading" in place.describe(pod)
