"""Real HDFS: two namenodes and a datanode of Hadoop 3.4.1, and one that wants Kerberos with MIT's KDC."""

import base64
import json
import os
import shutil
import socket
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path

import pytest
from hdfs import InsecureClient

from fakes.trees import content, facts, read_tree, told, whole_manifest, write_tree
from lading.errors import NotFound
from lading.sources.hdfs import HdfsSource
from real.conftest import SERVERS

HADOOP = Path(__file__).parent / "hadoop"
BLOCK_BYTES = 1 << 20
# Files of one block, of several whose MD5s fill HDFS's buffer or do not, of none; names that URLs escape.
FILES = {
    "config.json": b"{}",
    "empty": b"",
    "one-block": content(1000),
    "exactly-one-block": content(BLOCK_BYTES),
    "two-blocks": content(2 * BLOCK_BYTES, seed=1),
    "three-blocks": content(2 * BLOCK_BYTES + 1, seed=2),
    "five-blocks": content(4 * BLOCK_BYTES + 511, seed=3),
    "deep/er/leaf": b"leaf",
    "with space/and+plus & more=%41?#": b"characters that URLs escape",
    "unicode/gr\u00fc\u00dfe-\u6a21\u578b-\U0001f600.txt": b"names",
}
# What the cluster itself makes of an append as a new block.
APPENDED = {"appended": b"onetwo"}
RANGE_BYTES = 700_000


@contextmanager
def hadoop(folder: Path, tree: Path, namenodes: int, *options: str, java: tuple[str, ...] = ()):
    """A cluster that serves ``tree`` as /models; yields its process and the namenodes' URLs."""
    assert (SERVERS / "hadoop/lib").is_dir(), "Hadoop is not installed: run make test-servers"
    command = ["java", "--add-opens", "java.base/java.lang=ALL-UNNAMED", "-Xmx512m", *java]
    command += ["-cp", str(SERVERS / "hadoop/lib/*"), str(HADOOP / "MiniHdfs.java"), str(folder), str(tree)]
    with (folder.parent / f"{folder.name}.log").open("wb") as log:
        process = subprocess.Popen(
            [*command, str(namenodes), f"dfs.blocksize={BLOCK_BYTES}", *options],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=log,
            text=True,
        )
    with process:
        try:
            line = process.stdout.readline()
            assert line.startswith("READY "), Path(log.name).read_text(errors="replace")[-3000:]
            yield process, line.split()[1]
        finally:
            process.kill()


@pytest.fixture(scope="module")
def tree(tmp_path_factory):
    return write_tree(tmp_path_factory.mktemp("tree"), FILES)


@pytest.fixture(scope="module")
def cluster(tree, tmp_path_factory):
    failover = "org.apache.hadoop.hdfs.server.namenode.ha.ConfiguredFailoverProxyProvider"
    options = [f"dfs.client.failover.proxy.provider.minidfs-ns={failover}"]
    with hadoop(tmp_path_factory.mktemp("hdfs") / "base", tree, 2, *options) as found:
        yield found


@pytest.fixture
def variables(cluster):
    return {"HDFS_NAMENODE": cluster[1], "HADOOP_USER_NAME": os.environ.get("USER") or "root"}


@pytest.mark.parametrize("range_bytes", [RANGE_BYTES, 1 << 30], ids=["ranges", "whole"])
def test_the_tree_is_delivered_and_every_file_is_verified_by_the_clusters_own_checksum(
    tree, variables, tmp_path, pull, range_bytes
):
    manifest = pull("hdfs://models", tmp_path / "m", variables=variables, verify="strict", range_bytes=range_bytes)
    found = told(manifest)
    assert read_tree(tmp_path / "m") == FILES | APPENDED
    assert {path: found[path] for path in FILES} == facts(tree)
    assert told(whole_manifest(tmp_path / "m")) == found
    by_path = manifest.by_path()
    assert {file.verified[0].algorithm for file in manifest.files if file.size_bytes} == {"hdfs-crc32c"}
    assert by_path["appended"].verified[0].part_sizes_bytes == (3, 3)
    assert len(by_path["five-blocks"].verified[0].part_sizes_bytes) == 5


def test_a_single_file_and_what_is_near_a_wrong_name(variables, tmp_path, pull):
    pull("hdfs://models/one-block", tmp_path / "m", variables=variables)
    assert read_tree(tmp_path / "m") == {"one-block": FILES["one-block"]}
    with pytest.raises(NotFound) as caught:
        pull("hdfs://models/on-block", tmp_path / "n", variables=variables)
    assert caught.value.hint.startswith("did you mean one-block")


def test_pages_of_a_listing_and_its_whole_are_the_same(variables, tmp_path, pull, monkeypatch):
    pages = pull("hdfs://models", tmp_path / "m", variables=variables)
    page = HdfsSource._page
    monkeypatch.setattr(
        HdfsSource, "_page", lambda self, operation, folder, **query: page(self, "LISTSTATUS", folder, **query)
    )
    assert told(pull("hdfs://models", tmp_path / "n", variables=variables)) == told(pages)


def test_what_is_replaced_through_the_official_client_has_another_validator(cluster, variables, tmp_path, pull):
    active = cluster[1].split(";")[0]
    client = InsecureClient(active, user=variables["HADOOP_USER_NAME"])
    client.write("/other/x", b"first", overwrite=True)
    first = pull("hdfs://other", tmp_path / "m", variables=variables)
    client.write("/other/x", b"again", overwrite=True)
    second = pull("hdfs://other", tmp_path / "m", variables=variables)
    assert first.files[0].validator != second.files[0].validator
    assert read_tree(tmp_path / "m") == {"x": b"again"}


def test_a_failover_of_the_namenodes_is_followed(cluster, variables, tmp_path, pull):
    process, urls = cluster
    process.stdin.write("failover\n")
    process.stdin.flush()
    assert process.stdout.readline() == "DONE\n"
    first, second = urls.split(";")
    for order in (urls, f"{second};{first}", f"http://127.0.0.1:1;{urls}"):
        given = variables | {"HDFS_NAMENODE": order}
        pull("hdfs://models", tmp_path / str(len(order)), variables=given, verify="strict")
    assert read_tree(tmp_path / str(len(urls))) == FILES | APPENDED


REALM = "LADING.TEST"


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@pytest.fixture(scope="module")
def kdc(program, tmp_path_factory):
    """A realm of its own; yields the environment that names it, and its keytabs' folder."""
    folder = tmp_path_factory.mktemp("kdc")
    port = free_port()
    configuration = (
        f"[libdefaults]\ndefault_realm = {REALM}\ndns_lookup_kdc = false\ndns_lookup_realm = false\nrdns = false\n"
        f"dns_canonicalize_hostname = false\nudp_preference_limit = 1\n"
        f"[realms]\n{REALM} = {{\n kdc = 127.0.0.1:{port}\n}}\n[domain_realm]\nlocalhost = {REALM}\n"
    )
    (folder / "krb5.conf").write_text(configuration)
    (folder / "unreachable.conf").write_text(configuration.replace(f":{port}", ":1"))
    (folder / "kdc.conf").write_text(
        f"[kdcdefaults]\nkdc_listen = 127.0.0.1:{port}\nkdc_tcp_listen = 127.0.0.1:{port}\n"
        f"[realms]\n{REALM} = {{\n database_name = {folder}/principal\n key_stash_file = {folder}/stash\n"
        f" acl_file = {folder}/acl\n}}\n"
    )
    environment = {
        **os.environ,
        "KRB5_CONFIG": str(folder / "krb5.conf"),
        "KRB5_KDC_PROFILE": str(folder / "kdc.conf"),
    }

    def run(*command: str) -> None:
        subprocess.run(command, env=environment, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)

    run(program("kdb5_util"), "create", "-s", "-r", REALM, "-P", "master")
    for principal, keytab in (("hdfs/localhost", "hdfs"), ("HTTP/localhost", "http"), ("iris", "iris")):
        run(program("kadmin.local"), "-r", REALM, "-q", f"addprinc -randkey {principal}")
        run(program("kadmin.local"), "-r", REALM, "-q", f"ktadd -k {folder}/{keytab}.keytab {principal}")
    process = subprocess.Popen([program("krb5kdc"), "-n", "-r", REALM], env=environment, stdout=subprocess.DEVNULL)
    try:
        yield environment, folder
    finally:
        process.kill()
        process.wait()


@pytest.fixture(scope="module")
def secure(kdc, tree, tmp_path_factory):
    """A cluster that knows only whom the KDC knows; yields its namenode."""
    _, folder = kdc
    options = {
        "hadoop.security.authentication": "kerberos",
        "dfs.namenode.kerberos.principal": f"hdfs/localhost@{REALM}",
        "dfs.namenode.keytab.file": folder / "hdfs.keytab",
        "dfs.datanode.kerberos.principal": f"hdfs/localhost@{REALM}",
        "dfs.datanode.keytab.file": folder / "hdfs.keytab",
        "hadoop.http.filter.initializers": "org.apache.hadoop.hdfs.web.AuthFilterInitializer",
        "hadoop.http.authentication.type": "kerberos",
        "hadoop.http.authentication.kerberos.principal": f"HTTP/localhost@{REALM}",
        "hadoop.http.authentication.kerberos.keytab": folder / "http.keytab",
        "dfs.web.authentication.kerberos.principal": f"HTTP/localhost@{REALM}",
        "dfs.web.authentication.kerberos.keytab": folder / "http.keytab",
        "dfs.block.access.token.enable": "true",
        "dfs.data.transfer.protection": "authentication",
        "ignore.secure.ports.for.testing": "true",
    }
    java = (f"-Djava.security.krb5.conf={folder}/krb5.conf",)
    pairs = [f"{name}={value}" for name, value in options.items()]
    with hadoop(tmp_path_factory.mktemp("secure") / "base", tree, 1, *pairs, java=java) as (_, url):
        yield url


def lading(kdc, *arguments: object, **environment: str) -> subprocess.CompletedProcess[str]:
    path = SERVERS / "python"
    assert path.is_dir(), "gssapi is not installed: run make test-servers"
    return subprocess.run(
        [sys.executable, "-m", "lading", *map(str, arguments)],
        env={**kdc[0], "PYTHONPATH": str(path), "S3_MAX_ATTEMPTS": "2", **environment},
        capture_output=True,
        text=True,
    )


def storage_json(kdc, namenode: str, keytab: str = "iris") -> str:
    keytab_text = base64.b64encode((kdc[1] / f"{keytab}.keytab").read_bytes()).decode()
    return json.dumps(
        {
            "type": "hdfs",
            "HDFS_NAMENODE": namenode,
            "KERBEROS_PRINCIPAL": f"iris@{REALM}",
            "KERBEROS_KEYTAB": keytab_text,
        }
    )


def test_kerberos_by_a_keytab_in_the_mounted_secret(kdc, secure, tmp_path):
    secret = tmp_path / "secret"
    secret.mkdir()
    (secret / "HDFS_NAMENODE").write_text(secure)
    (secret / "KERBEROS_PRINCIPAL").write_text(f"iris@{REALM}")
    shutil.copy(kdc[1] / "iris.keytab", secret / "KERBEROS_KEYTAB")
    result = lading(kdc, "pull", "hdfs://models", tmp_path / "m", "--verify=strict", HDFS_SECRET_DIR=str(secret))
    assert result.returncode == 0, result.stderr
    assert read_tree(tmp_path / "m") == FILES | APPENDED


def test_kerberos_by_a_keytab_in_the_storage_json_which_is_on_no_disk(kdc, secure, tmp_path):
    given = {"STORAGE_CONFIG": storage_json(kdc, secure)}
    result = lading(kdc, "pull", "hdfs://models/deep", tmp_path / "m", **given)
    assert result.returncode == 0, result.stderr
    assert read_tree(tmp_path / "m") == {"er/leaf": b"leaf"}
    shown = lading(kdc, "resolve", "hdfs://models", **given)
    assert "Kerberos" in shown.stdout + shown.stderr


@pytest.mark.parametrize(
    ("environment", "keytab", "code", "says"),
    [
        ({}, "http", 4, "no ticket"),
        ({"KRB5_CONFIG": "/dev/null"}, "iris", 4, "no ticket"),
        ({"KRB5_CONFIG": "{folder}/unreachable.conf"}, "iris", 5, "no ticket"),
        ({"PYTHONPATH": ""}, "iris", 8, "lading[kerberos]"),
    ],
    ids=["wrong-keytab", "no-configuration", "no-kdc", "no-extra"],
)
def test_kerberos_that_fails_says_why(kdc, secure, tmp_path, environment, keytab, code, says):
    given = {name: text.format(folder=kdc[1]) for name, text in environment.items()}
    given["STORAGE_CONFIG"] = storage_json(kdc, secure, keytab)
    result = lading(kdc, "pull", "hdfs://models", tmp_path / "m", **given)
    assert (result.returncode, says in result.stderr) == (code, True), result.stderr


def test_without_credentials_the_cluster_refuses_and_the_hint_says_what_to_set(kdc, secure, tmp_path):
    result = lading(kdc, "pull", "hdfs://models", tmp_path / "m", HDFS_NAMENODE=secure, HADOOP_USER_NAME="iris")
    assert result.returncode == 4
    assert "KERBEROS_KEYTAB" in result.stderr


def test_a_delegation_token_takes_the_place_of_kerberos(kdc, secure, tmp_path, program):
    asked = f"{secure}/webhdfs/v1/?op=GETDELEGATIONTOKEN&renewer=iris"
    code = (
        "import sys, json, urllib.request; from lading.auth.kerberos import Kerberos\n"
        f"header = Kerberos('iris@{REALM}', '{kdc[1]}/iris.keytab').authorization('localhost')\n"
        f"request = urllib.request.Request('{asked}', headers=dict([header]))\n"
        "print(json.load(urllib.request.urlopen(request))['Token']['urlString'])"
    )
    environment = {**kdc[0], "PYTHONPATH": str(SERVERS / "python")}
    got = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True)
    assert got.returncode == 0, got.stderr
    given = {"HDFS_NAMENODE": secure, "HDFS_DELEGATION_TOKEN": got.stdout.strip(), "PYTHONPATH": ""}
    result = lading(kdc, "pull", "hdfs://models", tmp_path / "m", "--verify=strict", **given)
    assert result.returncode == 0, result.stderr
    assert read_tree(tmp_path / "m") == FILES | APPENDED
    assert got.stdout.strip() not in result.stdout + result.stderr
    refused = lading(kdc, "pull", "hdfs://models", tmp_path / "n", **given | {"HDFS_DELEGATION_TOKEN": "AAAA"})
    assert refused.returncode == 4, refused.stderr
