"""HDFS by WebHDFS."""

from collections.abc import Iterator
from contextlib import contextmanager

from conformance.scene import BESIDE, FILES, MODEL, PARTS, Listed, Scene
from fakes.fake_webhdfs import FakeWebHdfs, opens
from fakes.faulty_http import FaultyServer
from fakes.trees import MIB, mapped_tree


@contextmanager
def faults(server: FaultyServer) -> Iterator[Scene]:
    cluster = FakeWebHdfs(server)
    for path, data in FILES.items():
        cluster.put(f"/models/{path}", data)
    yield Scene(
        server,
        "hdfs://models",
        lists=lambda request: "op=LISTSTATUS" in request.query,
        reads=lambda request: opens(request) and request.path.endswith("/big.bin"),
        put=lambda data: cluster.put("/models/weights/big.bin", data),
        settings={"variables": {"HDFS_NAMENODE": server.url, "HDFS_HEADERS": '{"X-Token": "se-cret"}'}},
        secret="se-cret",
    )


@contextmanager
def tree(request):
    with FaultyServer() as server, FaultyServer(host="localhost") as datanode:
        cluster = FakeWebHdfs(server, datanode, block_bytes=128 * MIB)
        for path, data in mapped_tree(request.getfixturevalue("tree")).items():
            cluster.put(f"/models/tree/{path}", data)
        cluster.make_folder("/models/tree/nothing")
        # Its checksums are asked for file by file, and have their own test.
        yield "hdfs://models/tree", {"variables": {"HDFS_NAMENODE": server.url}, "verify": "off"}


@contextmanager
def pages(server):
    cluster = FakeWebHdfs(server)
    cluster.page_files = 1
    for path, data in PARTS.items():
        cluster.put(f"/model/{path}", data)
    settings = {"variables": {"HDFS_NAMENODE": server.url}, "verify": "off"}
    lists = lambda request: "LISTSTATUS_BATCH" in request.query  # noqa: E731
    yield Listed("hdfs://model", settings, lists, cluster.answer, "/webhdfs/v1/model")


@contextmanager
def strays(server, tmp_path, stray):
    cluster = FakeWebHdfs(server)
    for path in (*MODEL, stray):
        cluster.put(f"/llm/{path}", MODEL.get(path, b""))
    yield "hdfs://llm", {"variables": {"HDFS_NAMENODE": server.url}}, f"/llm/{stray}"


@contextmanager
def empty(server):
    cluster = FakeWebHdfs(server)
    cluster.make_folder("/model")
    cluster.put(f"/{BESIDE}/a", b"a")
    yield ["hdfs://model", "hdfs://model/"], {"variables": {"HDFS_NAMENODE": server.url}}


FAULTS = {"hdfs": faults}
TREES = {"hdfs": tree}
PAGES = {"hdfs": pages}
STRAY_NAMES = {"hdfs": strays}
EMPTY = {"hdfs": empty}
