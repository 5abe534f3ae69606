"""The cluster itself: it comes up, leaves the machine as it was, and is gone when its first process or the run of tests is."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from cluster.single_node import HERE, VERSION, Cluster, _hierarchies

GROUPS = f"lading-cluster-{os.getpid()}"


def seen_outside(folder):
    """What a cluster would leave on the machine: links, filters, mounts, settings of the kernel."""
    links, filters = (
        subprocess.run(command, capture_output=True, text=True, check=True).stdout
        for command in (["ip", "-brief", "link"], ["iptables-save"])
    )
    names = {line.split()[0].partition("@")[0] for line in links.splitlines()}
    kernel = [Path("/proc/sys", name).read_text() for name in ("vm/overcommit_memory", "kernel/panic")]
    mounts = [line for line in Path("/proc/mounts").read_text().splitlines() if str(folder) in line]
    return names & {"node0", "cni0"}, "KUBE" in filters, kernel, mounts


def test_a_node_is_ready_and_knows_its_version(node):
    assert node["status"]["nodeInfo"]["kubeletVersion"] == f"v{VERSION}"
    assert node["status"]["addresses"][0]["address"].startswith("10.98.")


def test_the_machine_is_as_it_was_while_the_cluster_runs_and_when_it_was_killed(tmp_path):
    before = seen_outside(tmp_path)
    assert before[0] == set()
    (tmp_path / "second").mkdir()
    cluster = Cluster(tmp_path / "second", groups=f"{GROUPS}-second")
    with cluster:
        assert seen_outside(tmp_path) == before
        assert len(cluster.processes()) > 6
        # As by the kernel, for want of memory: nobody is left to tidy up.
        os.kill(cluster.parent, signal.SIGKILL)
        cluster.wait_until_gone()
        assert cluster.processes() == []
    assert seen_outside(tmp_path) == before
    assert not [path for root in _hierarchies() for path in root.glob(f"{GROUPS}-second*")]


# A run of tests that has a cluster, or is about to, and is not done with it.
_RUN = {
    "while it starts": """
from cluster import single_node

def test(request, monkeypatch):
    begin = single_node.Cluster._wait_until_ready

    def tell(cluster):
        print("now", flush=True)
        begin(cluster)

    monkeypatch.setattr(single_node.Cluster, "_wait_until_ready", tell)
    request.getfixturevalue("cluster")
""",
    "while it runs": """
import signal

def test(cluster):
    print("now", flush=True)
    signal.pause()
""",
}


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("when", _RUN)
def test_nothing_is_left_of_a_run_that_is_interrupted(tmp_path, when, number):
    before = seen_outside(tmp_path)
    (tmp_path / "test_run.py").write_text(_RUN[when])
    options = ("-s", "-q", "-p", "cluster.conftest", f"--rootdir={tmp_path}", "-c", "/dev/null")
    command = [sys.executable, "-m", "pytest", *options, f"--basetemp={tmp_path}/run", tmp_path / "test_run.py"]
    environment = {**os.environ, "PYTHONPATH": str(HERE.parent)}
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=environment)
    said = next(line for line in process.stdout if "now" in line)
    process.send_signal(number)
    rest, _ = process.communicate(timeout=120)
    assert process.returncode == pytest.ExitCode.INTERRUPTED, said + rest
    assert seen_outside(tmp_path) == before
    assert not [path for root in _hierarchies() for path in root.glob(f"lading-cluster-{process.pid}*")]
    assert not processes_with(f"{tmp_path}/run")


def processes_with(folder):
    """Whoever was started with something below this folder."""
    return [path for path in Path("/proc").glob("[0-9]*/cmdline") if folder.encode() in read(path)]


def read(path):
    try:
        return path.read_bytes()
    except OSError:
        return b""


def test_pods_see_nothing_outside_of_the_cluster(cluster, node):
    links = cluster.run("ip", "-brief", "link").splitlines()
    outside = {name for name in os.listdir("/sys/class/net") if name != "lo"}
    assert not outside & {line.split()[0].partition("@")[0] for line in links}
