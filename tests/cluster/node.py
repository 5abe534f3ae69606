"""The first process of the cluster's own namespaces: it starts the parts, in their order, and takes dead children away.

Whoever kills it ends everything that runs here, and every mount and network with it: the kernel does that for the first
process of a namespace.  It says "ready" once the API server answers, and ends when a part does.
"""

import json
import os
import ssl
import subprocess
import sys
import time
from pathlib import Path
from urllib.error import URLError
from urllib.request import urlopen

# What a kubelet would set for the whole machine: here it finds that it is set.
_KERNEL = {
    "vm/overcommit_memory": "1",
    "vm/panic_on_oom": "0",
    "kernel/panic": "10",
    "kernel/panic_on_oops": "1",
    "kernel/keys/root_maxkeys": "1000000",
    "kernel/keys/root_maxbytes": "25000000",
}
# What is there, in a file that a test may write to: the kubelet reads there how many tasks the machine may have.
_TASKS = "kernel/threads-max"
_DISK_BYTES = 32 << 30


def run(*command: str) -> None:
    subprocess.run(command, check=True)


def keep_the_machine(folder: Path) -> None:
    """Changes to /var, /run and the kernel's settings stay in this mount namespace."""
    for name in ("var", "run"):
        upper, work = folder / "changed" / name, folder / "changed" / f"{name}.work"
        upper.mkdir(parents=True)
        work.mkdir()
        run("mount", "-t", "overlay", "-o", f"lowerdir=/{name},upperdir={upper},workdir={work}", "overlay", f"/{name}")
    for name, value in (_KERNEL | {_TASKS: Path("/proc/sys", _TASKS).read_text().strip()}).items():
        if (real := Path("/proc/sys", name)).exists():
            copy = folder / "changed" / name.replace("/", ".")
            copy.write_text(f"{value}\n")
            run("mount", "--bind", str(copy), str(real))
    mount_disk(folder)
    # A kubelet's volumes must be seen by containers.
    run("mount", "--make-rshared", "/")


def mount_disk(folder: Path) -> None:
    """The kubelet has a disk of its own, which takes as much of the machine's as is written: a test can fill it."""
    disk = folder / "disk"
    with disk.open("wb") as file:
        file.truncate(_DISK_BYTES)
    run("mkfs.ext4", "-q", "-m", "0", "-T", "largefile", str(disk))
    run("mount", "-o", "loop", str(disk), str(folder / "kubelet"))


def make_network(address: str) -> None:
    run("ip", "link", "set", "lo", "up")
    run("ip", "link", "add", "node0", "type", "bridge")
    run("ip", "addr", "add", f"{address}/24", "dev", "node0")
    run("ip", "link", "set", "node0", "up")
    # Leads nowhere; but the parts of Kubernetes look for one.
    run("ip", "route", "add", "default", "via", f"{address.rpartition('.')[0]}.254", "dev", "node0")
    Path("/proc/sys/net/ipv4/ip_forward").write_text("1")


def start(folder: Path, name: str, command: list[str]) -> subprocess.Popen:
    with (folder / "log" / name).open("wb") as log:
        return subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True)


def wait_for(url: str, part: subprocess.Popen) -> None:
    # Who else could listen there?
    context = ssl._create_unverified_context()
    while part.poll() is None:
        try:
            with urlopen(url, timeout=5, context=context):
                return
        except (URLError, OSError):
            time.sleep(0.1)


def main() -> None:
    plan = json.loads(Path(sys.argv[1]).read_text())
    folder = Path(sys.argv[1]).parent
    (folder / "log").mkdir()
    keep_the_machine(folder)
    make_network(plan["address"])
    running = {}
    for name, command in plan["parts"].items():
        running[name] = start(folder, name, command)
        if name == "kube-apiserver":
            wait_for(plan["ready"], running[name])
    print("ready", flush=True)
    pids = {part.pid: name for name, part in running.items()}
    while (ended := os.wait())[0] not in pids:
        pass
    print(f"{pids[ended[0]]} ended: {(folder / 'log' / pids[ended[0]]).read_text()[-4000:]}", file=sys.stderr)
    sys.exit(1)


main()
