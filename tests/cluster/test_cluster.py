"""The cluster itself: it comes up, leaves the machine as it was, and is gone when its first process is."""

import os
import signal
import subprocess
from pathlib import Path

from cluster.single_node import VERSION, Cluster, _hierarchies

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


def test_pods_see_nothing_outside_of_the_cluster(cluster, node):
    links = cluster.run("ip", "-brief", "link").splitlines()
    outside = {name for name in os.listdir("/sys/class/net") if name != "lo"}
    assert not outside & {line.split()[0].partition("@")[0] for line in links}
