"""Our own WebHDFS is WebHDFS to the hdfs package: what lading is shown with it, it could meet."""

import pytest

from fakes.fake_webhdfs import FakeWebHdfs
from fakes.faulty_http import FaultyServer

FILES = {"/models/a": b"a" * 1000, "/models/b/c d+e": b"c", "/models/b/\u6a21\u578b": b"", "/other/x": b"x" * 300_000}


@pytest.fixture
def cluster():
    with FaultyServer() as server, FaultyServer() as datanode:
        cluster = FakeWebHdfs(server, datanode)
        for path, data in FILES.items():
            cluster.put(path, data)
        yield cluster


def test_hdfs_lists_and_walks(cluster):
    from hdfs import InsecureClient

    client = InsecureClient(cluster.server.url, user="iris")
    assert client.list("/models") == ["a", "b"]
    assert client.status("/models/a")["length"] == 1000
    found = [f"{folder}/{name}" for folder, _, names in client.walk("/") for name in names]
    assert sorted(path.replace("//", "/") for path in found) == sorted(FILES)


def test_hdfs_reads_files_and_parts_of_them_from_the_datanode(cluster):
    from hdfs import InsecureClient

    client = InsecureClient(cluster.server.url)
    for path, data in FILES.items():
        with client.read(path) as reader:
            assert reader.read() == data
    with client.read("/other/x", offset=5, length=7) as reader:
        assert reader.read() == b"x" * 7
    assert len(cluster.datanode.requests) == len(FILES) + 1


def test_hdfs_reads_checksums(cluster):
    from hdfs import InsecureClient

    found = InsecureClient(cluster.server.url).checksum("/other/x")
    assert found["algorithm"] == "MD5-of-512MD5-of-512CRC32C"
    assert found["length"] == 28


def test_hdfs_understands_the_errors(cluster):
    from hdfs import HdfsError, InsecureClient

    with pytest.raises(HdfsError, match="FileNotFoundException"):
        InsecureClient(cluster.server.url).status("/models/no")
    cluster.refuse = lambda request: "AccessControlException"
    with pytest.raises(HdfsError) as caught:
        InsecureClient(cluster.server.url).list("/models")
    assert caught.value.exception == "AccessControlException"


def test_hdfs_passes_over_a_standby(cluster):
    from hdfs import Client

    with FaultyServer() as server:
        standby = FakeWebHdfs(server)
        standby.refuse = lambda request: "StandbyException"
        assert Client(f"{server.url};{cluster.server.url}").list("/models") == ["a", "b"]


def test_hdfs_reads_with_a_delegation_token(cluster):
    from hdfs import TokenClient

    cluster.token = "dn-token"
    cluster.refuse = lambda request: None if "delegation=nn-token" in request.query else "SecurityException"
    with TokenClient(cluster.server.url, "nn-token").read("/models/a") as reader:
        assert reader.read() == FILES["/models/a"]
    assert "nn-token" not in repr(cluster.datanode.requests)
