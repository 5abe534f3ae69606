"""S3, by the fake, rclone and moto."""

from collections.abc import Iterator
from contextlib import contextmanager

from conformance.scene import BESIDE, FILES, MODEL, PARTS, Listed, Scene
from fakes.fake_s3 import FakeS3
from fakes.faulty_http import FaultyServer
from fakes.real_s3 import ACCESS_KEY_ID, BUCKET, client, fill_moto, moto, rclone, s3_settings


@contextmanager
def faults(server: FaultyServer) -> Iterator[Scene]:
    bucket = FakeS3(server)
    for path, data in FILES.items():
        bucket.put(f"model/{path}", data)
    yield Scene(
        server,
        "s3://models/model",
        lists=lambda request: request.path == "/models/",
        reads=lambda request: request.path == "/models/model/weights/big.bin" and request.method == "GET",
        put=lambda data: bucket.put("model/weights/big.bin", data),
        settings=s3_settings(server.url),
        secret=ACCESS_KEY_ID,
    )


@contextmanager
def tree_by_rclone(request):
    with rclone(request.getfixturevalue("buckets")) as endpoint:
        yield f"s3://{BUCKET}/tree", s3_settings(endpoint)


@contextmanager
def tree_by_moto(request):
    with moto() as endpoint:
        fill_moto(request.getfixturevalue("tree"), "tree")
        for marker in ("tree/", "tree/deep/", "tree/nothing-but-a-marker/"):
            client(endpoint).put_object(Bucket=BUCKET, Key=marker, Body=b"")
        yield f"s3://{BUCKET}/tree", s3_settings(endpoint)


@contextmanager
def pages(server):
    bucket = FakeS3(server)
    bucket.page_keys = 1
    for path, data in PARTS.items():
        bucket.put(f"model/{path}", data)
    settings = {"variables": {"AWS_ENDPOINT_URL": server.url, "awsAnonymousCredential": "true"}}
    yield Listed("s3://models/model", settings, lambda request: "list-type" in request.query, bucket.answer, "/models/")


@contextmanager
def strays(server, tmp_path, stray):
    bucket = FakeS3(server)
    for path in (*MODEL, stray):
        bucket.put(f"llm/{path}", MODEL.get(path, b""))
    settings = {"variables": {"AWS_ENDPOINT_URL": server.url, "awsAnonymousCredential": "true"}}
    yield "s3://models/llm", settings, f"llm/{stray}"


@contextmanager
def empty(server):
    bucket = FakeS3(server)
    bucket.put("model/", b"")
    bucket.put(f"{BESIDE}/a", b"a")
    settings = {"variables": {"AWS_ENDPOINT_URL": server.url, "awsAnonymousCredential": "true"}}
    yield ["s3://models/model", "s3://models/model/"], settings


FAULTS = {"s3": faults}
TREES = {"s3-rclone": tree_by_rclone, "s3-moto": tree_by_moto}
PAGES = {"s3": pages}
STRAY_KEYS = {"s3": strays}
EMPTY = {"s3": empty}
