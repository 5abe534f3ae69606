"""What a cluster lists, declares and refuses, by the fake; ``real/test_hdfs.py`` asks a real one."""

import base64
import json
import os
import ssl

import pytest

from fakes.certificates import Authority
from fakes.destination import Destination
from fakes.fake_webhdfs import PREFIX, FakeWebHdfs, at_datanode, checksum, error, of, opens
from fakes.faulty_http import ALWAYS, ANYWHERE, Answer, FaultyServer, reset, status, wrong_byte
from fakes.trees import content, read_tree
from lading.errors import IntegrityError, NotAllowed, NotFound, OriginChanged, Unavailable, Unsupported, UsageError
from lading.events import Unverified

BIG = content(1_000_000)
FILES = {"config.json": b"{}", "empty": b"", "deep/er/leaf": b"leaf", "with space/a+b%41?#&": b"x", "big.bin": BIG}
RANGE_BYTES = 300_000
RANGES = pytest.mark.parametrize("range_bytes", [RANGE_BYTES, len(BIG)], ids=["ranges", "whole"])


@pytest.fixture
def datanode():
    with FaultyServer(host="localhost") as server:
        yield server


@pytest.fixture
def cluster(server, datanode):
    cluster = FakeWebHdfs(server, datanode)
    fill(cluster)
    return cluster


def fill(cluster: FakeWebHdfs) -> None:
    for path, data in FILES.items():
        cluster.put(f"/models/iris/{path}", data)
    cluster.put("/models/iris-v2/config.json", b"another model")
    cluster.make_folder("/models/iris/deep/nothing")
    cluster.make_folder("/models/bare/folder")


@pytest.fixture
def variables(server) -> dict[str, str]:
    return {"HDFS_NAMENODE": server.url}


@pytest.fixture
def destination(tmp_path) -> Destination:
    return Destination(tmp_path / "model")


def operations(server: FaultyServer) -> set[str]:
    return {of(request) for request in server.requests}


@RANGES
@pytest.mark.parametrize("uri", ["hdfs://models/iris", "hdfs:///models/iris/", "webhdfs://models//iris"])
def test_a_folder_is_delivered_with_all_that_is_below_it(cluster, variables, destination, pull, uri, range_bytes):
    manifest = pull(uri, destination.path, variables=variables, verify="strict", range_bytes=range_bytes)
    destination.assert_holds(FILES)
    (verified,) = manifest.by_path()["big.bin"].verified
    assert (verified.algorithm, verified.part_sizes_bytes) == ("hdfs-crc32c", (262144, 262144, 262144, 213568))


def test_a_file_is_delivered_under_its_name(cluster, variables, destination, pull):
    pull("hdfs://models/iris/big.bin", destination.path, variables=variables)
    destination.assert_holds({"big.bin": BIG})


def test_patterns_hold_at_every_depth(cluster, variables, destination, pull):
    pull("hdfs://models/iris", destination.path, variables=variables, allow=("*.json", "deep/*"))
    destination.assert_holds({path: FILES[path] for path in ("config.json", "deep/er/leaf")})


@pytest.mark.parametrize(
    ("path", "hint"),
    [
        ("models/bare", "there is iris, iris-v2"),
        ("models/irsi", "did you mean iris?"),
        ("models/ir", "did you mean iris or iris-v2?"),
        ("model", "did you mean models?"),
    ],
)
def test_nothing_found_is_an_error_that_names_what_is_near(cluster, variables, destination, pull, path, hint):
    with pytest.raises(NotFound) as caught:
        pull(f"hdfs://{path}", destination.path, variables=variables)
    assert caught.value.hint == hint
    destination.assert_untouched()


@pytest.mark.parametrize("without", [set(), {"LISTSTATUS_BATCH"}], ids=["pages", "before-hadoop-3"])
def test_a_listing_in_pages_and_one_without_are_the_same(cluster, variables, destination, pull, without):
    cluster.page_files, cluster.without = 2, without
    pull("hdfs://models/iris", destination.path, variables=variables)
    destination.assert_holds(FILES)


@pytest.mark.parametrize("sizes", [(512, 262144, 737344), (100, 999900)], ids=["whole-chunks", "a-short-first-block"])
def test_blocks_of_different_sizes_are_verified(cluster, variables, destination, pull, sizes):
    cluster.put("/m/x", BIG, block_sizes=sizes)
    manifest = pull("hdfs://m/x", destination.path, variables=variables, range_bytes=RANGE_BYTES, verify="strict")
    assert manifest.files[0].verified[0].part_sizes_bytes == sizes


def test_checksums_of_gzips_crc_are_verified(cluster, variables, destination, pull):
    cluster.put("/m/x", BIG, crc="CRC32")
    manifest = pull("hdfs://m/x", destination.path, variables=variables, verify="strict")
    assert manifest.files[0].verified[0].algorithm == "hdfs-crc32"


def test_a_composite_crc_is_a_crc_of_the_file(cluster, variables, destination, pull):
    # As HttpFS answers with dfs.checksum.combine.mode=COMPOSITE_CRC; e3069283 is the CRC32C of these digits.
    told = {"FileChecksum": {"algorithm": "COMPOSITE-CRC32C", "bytes": "e3069283", "length": 4}}
    cluster.put("/m/x", b"123456789", checksum=lambda: Answer(200, {}, json.dumps(told).encode()))
    manifest = pull("hdfs://m/x", destination.path, variables=variables, verify="strict")
    assert str(manifest.files[0].verified[0]) == "crc32c:e3069283"


@pytest.mark.parametrize(
    "told",
    [
        {"checksum": lambda: error("IllegalArgumentException")},
        {"checksum": lambda: Answer(403)},
        {"checksum": lambda: Answer(200, {}, b'{"FileChecksum": null}')},
        {
            "checksum": lambda: Answer(
                200, {}, b'{"FileChecksum": {"algorithm": "MD5-of-0MD5-of-4096CRC32C", "bytes": ""}}'
            )
        },
        {"checksum": lambda: Answer(200, {}, b'{"FileChecksum": {"algorithm": [], "bytes": "zz"}}')},
        {"checksum": lambda: Answer(200, {}, b"[" * 100_000)},
        {"about": {"ecBit": True}, "checksum": lambda: error("IOException")},
        {"about": {"encBit": True}, "checksum": lambda: error("IOException")},
        # As an HttpFS without the fields that are HDFS's own; it would not tell an encrypted file either.
        {"about": {"fileId": None}, "checksum": lambda: error("IOException")},
    ],
    ids=[
        "no-operation",
        "refused",
        "null",
        "other-chunks",
        "nonsense",
        "no-json",
        "erasure-coded",
        "encrypted",
        "no-inode",
    ],
)
def test_a_file_whose_checksum_cannot_be_had_or_computed_is_named_as_not_verified(
    cluster, variables, destination, pull, events, told
):
    cluster.put("/m/x", BIG, **told)
    pull("hdfs://m/x", destination.path, variables=variables, range_bytes=RANGE_BYTES)
    assert Unverified(1, "x") in events
    with pytest.raises(Unsupported, match="x cannot be verified"):
        pull("hdfs://m/x", destination.path.with_name("strict"), variables=variables, verify="strict")


def test_a_checksum_of_a_version_without_block_locations_is_used_for_files_of_one_block(
    cluster, variables, destination, pull, events
):
    cluster.without = {"GETFILEBLOCKLOCATIONS"}
    manifest = pull("hdfs://models/iris", destination.path, variables=variables)
    assert manifest.by_path()["deep/er/leaf"].verified[0].algorithm == "hdfs-crc32c"
    assert Unverified(1, "big.bin") in events


@RANGES
def test_a_damaged_file_is_refused(cluster, variables, datanode, destination, pull, range_bytes):
    datanode.misbehave(ANYWHERE, wrong_byte(600_000, on=opens, times=ALWAYS))
    with pytest.raises(IntegrityError, match=r"big\.bin"):
        pull("hdfs://models/iris", destination.path, variables=variables, range_bytes=range_bytes)
    destination.assert_untouched()


def test_verification_that_is_off_asks_for_no_checksum(cluster, variables, server, destination, pull):
    pull("hdfs://models/iris", destination.path, variables=variables, verify="off")
    assert "GETFILECHECKSUM" not in operations(server)


@RANGES
@pytest.mark.parametrize("about", [{}, {"about": {"modificationTime": 7}}], ids=["same-size", "touched"])
def test_a_file_replaced_while_it_is_read_is_noticed_without_a_validator(
    cluster, variables, datanode, destination, pull, range_bytes, about
):
    # From the first byte on, as if it had been replaced between the redirect and the datanode's look.
    new = content(len(BIG), seed=9)
    datanode.on_sent = lambda request, total: cluster.put("/models/iris/big.bin", new, **about)
    with pytest.raises(OriginChanged):
        pull("hdfs://models/iris/big.bin", destination.path, variables=variables, range_bytes=range_bytes)
    destination.assert_untouched()


def test_a_file_that_is_gone_after_it_was_listed_has_changed(cluster, variables, datanode, destination, pull):
    datanode.on_sent = lambda request, total: cluster.files.pop("/models/iris/big.bin", None)
    with pytest.raises((OriginChanged, NotFound)):
        pull("hdfs://models/iris/big.bin", destination.path, variables=variables)
    destination.assert_untouched()


@pytest.mark.parametrize("order", ["standby-first", "active-first", "unreachable-first", "no-such-host-first"])
def test_the_active_namenode_is_found_wherever_it_stands(cluster, server, destination, pull, order):
    with FaultyServer() as second:
        standby = FakeWebHdfs(second)
        standby.refuse = lambda request: "StandbyException"
        namenodes = {
            "standby-first": f"{second.url};{server.url}",
            "active-first": f"{server.url}; {second.url};",
            "unreachable-first": f"http://127.0.0.1:1;{server.url}",
            "no-such-host-first": f"http://namenode.invalid:9870;{server.url}",
        }[order]
        pull("hdfs://models/iris", destination.path, variables={"HDFS_NAMENODE": namenodes})
        assert len(second.requests) == (1 if order == "standby-first" else 0)
    destination.assert_holds(FILES)


def test_a_failover_in_mid_delivery_is_followed(cluster, server, destination, pull):
    with FaultyServer() as second:
        other = FakeWebHdfs(second)
        other.files, other.folders = cluster.files, cluster.folders
        other.refuse = lambda request: None if server.requests_for("", of=opens) or failed else "StandbyException"
        failed = []

        def fail(request):
            if of(request) == "OPEN":
                failed.append(request)
            return "StandbyException" if failed else None

        cluster.refuse = fail
        pull("hdfs://models/iris", destination.path, variables={"HDFS_NAMENODE": f"{server.url};{second.url}"})
    destination.assert_holds(FILES)
    assert failed


def test_two_namenodes_that_are_both_standby_are_waited_for_and_then_unavailable(
    cluster, server, destination, pull, clock
):
    cluster.refuse = lambda request: "StandbyException"
    with pytest.raises(Unavailable, match="no namenode is active"):
        pull("hdfs://models/iris", destination.path, variables={"HDFS_NAMENODE": f"{server.url};{server.url}/"})
    assert len(clock.waits) == 3
    destination.assert_untouched()


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("AccessControlException", NotAllowed),
        ("InvalidToken", NotAllowed),
        ("SecurityException", NotAllowed),
        ("IOException", Unavailable),
        ("RetriableException", Unavailable),
        ("IllegalArgumentException", Unsupported),
    ],
)
def test_a_refusal_is_told_by_its_exception_and_its_message_is_not_quoted(
    cluster, variables, destination, pull, name, kind
):
    cluster.refuse = lambda request: name
    with pytest.raises(kind) as caught:
        pull("hdfs://models/iris", destination.path, variables=variables)
    assert "s3cret" not in f"{caught.value} {caught.value.hint}"
    destination.assert_untouched()


def test_a_datanodes_trouble_is_waited_out(cluster, variables, datanode, destination, pull):
    # A block that is missing for the moment: a datanode answers 403, too.
    body = error("IOException").body
    datanode.misbehave(ANYWHERE, status(403, body, on=opens, times=2), reset(at=100_000, on=opens, times=2))
    pull("hdfs://models/iris", destination.path, variables=variables, range_bytes=RANGE_BYTES)
    destination.assert_holds(FILES)


@pytest.mark.parametrize(
    ("challenges", "wants_kerberos"),
    [
        ("Negotiate", True),
        ('Basic realm="a, b", negotiate YIIabc==', True),
        ('Basic realm="Negotiate"', False),
        ('Basic realm="a, Negotiate"', False),
        ("", False),
    ],
)
def test_a_cluster_that_wants_kerberos_says_what_to_set(
    cluster, variables, server, destination, pull, challenges, wants_kerberos
):
    server.misbehave(ANYWHERE, status(401, headers={"WWW-Authenticate": challenges}, times=ALWAYS))
    with pytest.raises(NotAllowed) as caught:
        pull("hdfs://models/iris", destination.path, variables=variables)
    assert ("KERBEROS_KEYTAB" in caught.value.hint) is wants_kerberos


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({}, set()),
        ({"HADOOP_USER_NAME": "iris"}, {"user.name=iris"}),
        ({"HADOOP_USER_NAME": "iris", "HDFS_USER_PROXY": "eve"}, {"user.name=iris", "doas=eve"}),
        ({"HDFS_DELEGATION_TOKEN": "t0ken"}, {"delegation=t0ken"}),
        ({"HADOOP_USER_NAME": "iris", "HDFS_USER_PROXY": "eve", "HDFS_DELEGATION_TOKEN": "t"}, {"delegation=t"}),
    ],
)
def test_the_namenode_is_told_who_asks(cluster, variables, server, destination, pull, given, said):
    pull("hdfs://models/iris/config.json", destination.path, variables={**variables, **given})
    for request in server.requests:
        found = {part for part in request.query.split("&") if part.startswith(("user.name", "doas", "delegation"))}
        assert found == said


def test_no_credential_reaches_a_datanode_but_what_the_namenode_gives(
    cluster, variables, server, datanode, destination, pull
):
    cluster.token = "of-the-namenode"
    given = {"HDFS_DELEGATION_TOKEN": "s3cret", "HDFS_HEADERS": '{"Authorization": "Basic s3cret", "X-Key": "s3cret"}'}
    pull("hdfs://models/iris", destination.path, variables={**variables, **given})
    destination.assert_holds(FILES)
    assert all(request.headers["x-key"] == "s3cret" for request in server.requests)
    assert any(at_datanode(request) for request in datanode.requests)
    assert "s3cret" not in repr(datanode.requests)
    assert "of-the-namenode" in repr(datanode.requests)


def test_a_redirect_from_https_to_http_is_refused(tmp_path, destination, pull, datanode):
    authority = Authority(tmp_path)
    with FaultyServer(authority.server_context("127.0.0.1")) as server:
        cluster = FakeWebHdfs(server, datanode)
        fill(cluster)
        given = {"HDFS_NAMENODE": server.url, "HDFS_TLS_CA": base64_of(authority.bundle), "HADOOP_USER_NAME": "iris"}
        with pytest.raises(NotAllowed, match="unencrypted"):
            pull("hdfs://models/iris", destination.path, variables=given, verify="off")
    assert not datanode.requests
    destination.assert_untouched()


def base64_of(path: str) -> str:
    with open(path, "rb") as file:
        return base64.b64encode(file.read()).decode()


@pytest.fixture
def mutual(tmp_path, each_tls):
    """A cluster that wants a client's certificate, and the secret that KServe would mount for it."""
    authority = Authority(tmp_path)
    context = authority.server_context("127.0.0.1")
    context.verify_mode = ssl.CERT_REQUIRED
    context.load_verify_locations(authority.bundle)
    certificate = authority._ca.issue_cert("client@models.test")
    folder = tmp_path / "secret"
    folder.mkdir()
    certificate.cert_chain_pems[0].write_to_path(str(folder / "TLS_CERT"))
    certificate.private_key_pem.write_to_path(str(folder / "TLS_KEY"))
    os.link(authority.bundle, folder / "TLS_CA")
    with FaultyServer(context) as server:
        fill(FakeWebHdfs(server))
        (folder / "HDFS_NAMENODE").write_text(f"{server.url}\n")
        yield folder


def test_a_client_certificate_comes_from_the_mounted_secret(mutual, destination, pull):
    pull("hdfs://models/iris", destination.path, variables={"HDFS_SECRET_DIR": str(mutual)})
    destination.assert_holds(FILES)
    for name in ("TLS_CERT", "TLS_KEY"):
        (mutual / name).unlink()
    with pytest.raises(Unavailable):
        pull("hdfs://models/iris", destination.path, variables={"HDFS_SECRET_DIR": str(mutual)})


def test_a_client_certificate_comes_from_the_storage_json_and_is_on_no_disk(mutual, tmp_path, destination, pull):
    from lading.settings.settings import Settings

    spec = {name: base64_of(str(mutual / name)) for name in ("TLS_CERT", "TLS_KEY", "TLS_CA")}
    spec |= {"type": "webhdfs", "HDFS_NAMENODE": (mutual / "HDFS_NAMENODE").read_text(), "N_THREADS": "8"}
    key = (mutual / "TLS_KEY").read_text()
    (mutual / "TLS_KEY").unlink()
    loaded = Settings.load({"STORAGE_CONFIG": json.dumps(spec), "LADING_CONFIG": ""})
    pull("hdfs://models/iris", destination.path, variables=dict(loaded.variables))
    destination.assert_holds(FILES)
    assert [path for path, data in read_tree(tmp_path).items() if key.encode() in data] == []


@pytest.mark.parametrize(
    "listing",
    [
        b"[]",
        b"<html>",
        b"[" * 100_000,
        b'{"DirectoryListing": 7}',
        b'{"DirectoryListing": {"remainingEntries": 0, "partialListing": {"FileStatuses": {"FileStatus": [7]}}}}',
        b'{"DirectoryListing": {"remainingEntries": "x", "partialListing": {"FileStatuses": {"FileStatus": []}}}}',
        b'{"FileStatuses": {"FileStatus": [{"pathSuffix": "x", "type": "FILE", "length": -1}]}}',
    ],
)
def test_what_is_no_listing_is_refused(server, variables, destination, pull, listing):
    server.routes[PREFIX] = lambda request: Answer(200, {}, listing)
    with pytest.raises(Unsupported, match="does not answer as WebHDFS does"):
        pull("hdfs://models/iris", destination.path, variables=variables)
    destination.assert_untouched()


@pytest.mark.parametrize("name", ["../up", "..", "a/b", "", ".lading", "nul\0"])
@pytest.mark.parametrize("kind", ["FILE", "DIRECTORY"])
def test_a_name_that_would_lead_elsewhere_is_refused(server, variables, destination, pull, name, kind):
    status = {"pathSuffix": name, "type": kind, "length": 1}
    beside = {"pathSuffix": "a", "type": "FILE", "length": 1}

    def answer(request):
        statuses = [beside, status] if request.path.endswith("/iris") else [beside]
        listing = {"remainingEntries": 0, "partialListing": {"FileStatuses": {"FileStatus": statuses}}}
        return Answer(200, {}, json.dumps({"DirectoryListing": listing}).encode())

    server.routes[PREFIX] = answer
    with pytest.raises(IntegrityError if name or kind == "DIRECTORY" else (IntegrityError, Unsupported)):
        pull("hdfs://models/iris", destination.path, variables=variables)
    destination.assert_untouched()


def test_a_listing_without_end_is_refused(server, variables, destination, pull, monkeypatch):
    def answer(name: str, kind: str, left: int):
        status = {"pathSuffix": name, "type": kind, "length": 0}
        listing = {"remainingEntries": left, "partialListing": {"FileStatuses": {"FileStatus": [status]}}}
        return lambda request: Answer(200, {}, json.dumps({"DirectoryListing": listing}).encode())

    server.routes[PREFIX] = answer("x", "FILE", 1)
    with pytest.raises(IntegrityError, match="does not end"):
        pull("hdfs://models/iris", destination.path, variables=variables)
    monkeypatch.setattr("lading.sources.hdfs._MOST_FOLDERS", 50)
    server.routes[PREFIX] = answer("x", "DIRECTORY", 0)
    with pytest.raises(IntegrityError, match="does not end"):
        pull("hdfs://models/iris", destination.path, variables=variables)


def test_a_symbolic_link_is_refused(cluster, variables, destination, pull):
    cluster.put("/m/link", b"", about={"type": "SYMLINK", "symlink": "/etc/passwd"})
    with pytest.raises(Unsupported, match="neither a file nor a folder"):
        pull("hdfs://m", destination.path, variables=variables)


@pytest.mark.parametrize(
    ("root", "uri"),
    [("/models", "hdfs://iris"), ("/models/", "hdfs:///iris"), ("models", "hdfs://iris"), ("/", "hdfs://models/iris")],
)
def test_a_path_is_below_the_configured_root(cluster, variables, destination, pull, root, uri):
    for path, data in FILES.items():
        cluster.put(f"/user/eve/models/iris/{path}", data)
    given = {"HDFS_ROOTPATH": root, "HADOOP_USER_NAME": "eve"}
    pull(uri, destination.path, variables={**variables, **given})
    destination.assert_holds(FILES)


def test_a_namenode_that_only_the_uri_names_is_asked_without_credentials(cluster, server, destination, pull):
    port = server.url.rpartition(":")[2]
    pull(f"webhdfs://localhost:{port}/models/iris", destination.path)
    destination.assert_holds(FILES)
    with pytest.raises(UsageError, match="HDFS_NAMENODE"):
        pull(f"webhdfs://localhost:{port}/models/iris", destination.path, variables={"HDFS_HEADERS": '{"A": "s3cret"}'})


def test_the_checksum_of_an_empty_file_is_hdfs_own():
    # As a cluster of Hadoop 3.4.1 tells it.
    assert checksum(b"", ()) == "70bc8f4b72a86921468bf8e8441dce51"
