"""A single-node cluster of Kubernetes in namespaces of its own: network, mounts, processes, and so their end.

    folder/
      plan.json          what node.py starts, in order
      pki/               one authority, and a certificate for each part
      etcd/ kubelet/ containerd/ run/
      disk               the file system that is mounted at kubelet/
      changed/           what the parts wrote to /var and /run, and what they read as settings of the kernel
      log/               a file for each part

Nothing of it is seen outside: pods reach servers whose sockets were made ``within()``, and nothing else.
"""

import json
import os
import select
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from http import HTTPStatus
from http.client import HTTPConnection
from pathlib import Path
from typing import Self

import trustme
import yaml

from fakes.own_network import entered

HERE = Path(__file__).parent
SERVERS = HERE.parents[1] / ".servers" / "cluster"
VERSION = "1.35.4"
ADDRESS = "10.98.0.1"
PODS = "10.97.0.0/24"
SERVICES = "10.96.0.0/16"
API = f"https://{ADDRESS}:6443"
_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


class Cluster:
    """A context manager.  Needs root, and what tools/cluster.sh installs."""

    def __init__(self, folder: Path, groups: str = f"lading-cluster-{os.getpid()}") -> None:
        self._folder = folder
        self.binary = SERVERS / f"kubernetes-{VERSION}"
        self._groups = groups
        self.pki = folder / "pki"
        self.socket = folder / "run" / "containerd.sock"

    def __enter__(self) -> Self:
        assert self.binary.exists(), "Kubernetes is not built: run make test-cluster"
        for name in ("etcd", "kubelet", "containerd", "run", "pki", "net.d"):
            (self._folder / name).mkdir()
        self._write_certificates()
        self._write_plan()
        for hierarchy in _hierarchies():
            for left in hierarchy.glob("lading-cluster-*"):
                # Of a run that was killed itself: whoever still has processes in them keeps them.
                with suppress(OSError):
                    _remove_groups(left)
            (hierarchy / self._groups).mkdir(exist_ok=True)
        self._errors = (self._folder / "errors").open("wb")
        command = ["setpriv", "--pdeathsig", "KILL", "unshare", "--net", "--mount", "--pid", "--fork", "--kill-child"]
        command += ["--mount-proc", sys.executable, str(HERE / "node.py"), str(self._folder / "plan.json")]
        self._process = subprocess.Popen(
            command,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            text=True,
            env={"PATH": _PATH},
            start_new_session=True,
        )
        try:
            self._wait_until_ready()
        except BaseException:
            # An interrupt among them: who has not entered is not told to leave.
            self._take_down()
            raise
        return self

    def _wait_until_ready(self) -> None:
        if self._process.stdout.readline() != "ready\n":
            raise AssertionError((self._folder / "errors").read_text())
        self.parent = self._process.pid
        (self._first,) = map(int, _children(self.parent))
        self._end = os.pidfd_open(self._first)
        self._space = os.readlink(f"/proc/{self._first}/ns/pid")

    def __exit__(self, *_) -> None:
        self._take_down()
        self.wait_until_gone()
        os.close(self._end)

    def _take_down(self) -> None:
        children = _children(self._process.pid)
        for child in children:
            os.kill(int(child), signal.SIGKILL)
        if not children:
            # It was interrupted before it had one.
            self._process.kill()
        self._process.communicate()
        self._errors.close()
        for hierarchy in _hierarchies():
            _remove_groups(hierarchy / self._groups)
        shutil.rmtree(self._folder / "containerd")
        (self._folder / "disk").unlink(missing_ok=True)

    def wait_until_gone(self) -> None:
        """Until no process is left: the first one of a namespace ends after all others."""
        select.select([self._end], [], [])

    def processes(self) -> list[int]:
        """All that run in the cluster, as the machine counts them: the parts, and what is in containers."""
        return [int(path.name) for path in Path("/proc").glob("[0-9]*") if self._is_ours(path)]

    def _is_ours(self, process: Path) -> bool:
        try:
            # One that has ended, and that nobody has asked about yet, has no command.
            running = (process / "cmdline").read_bytes()
            return bool(running) and (
                os.readlink(process / "ns/pid") == self._space or self._groups in (process / "cgroup").read_text()
            )
        except OSError:
            return False

    @contextmanager
    def hardly_any_tasks(self) -> Iterator[None]:
        """The kubelet finds that the machine may have fewer threads than it has; the machine may have what it had."""
        limit = self._folder / "changed" / "kernel.threads-max"
        before = limit.read_text()
        running = int(Path("/proc/loadavg").read_text().split()[3].partition("/")[2])
        limit.write_text(f"{running // 2}\n")
        try:
            yield
        finally:
            limit.write_text(before)

    @contextmanager
    def full_disk(self) -> Iterator[None]:
        """Something else than pods has filled the disk that their volumes are on, but for 100 MiB."""
        volumes = self._folder / "kubelet"
        blocks, block_bytes = map(int, self.run("stat", "--file-system", "--format=%a %S", volumes).split())
        self.run("fallocate", "--length", blocks * block_bytes - (100 << 20), volumes / "ballast")
        try:
            yield
        finally:
            self.run("rm", volumes / "ballast")

    @contextmanager
    def within(self) -> Iterator[None]:
        """This thread, for as long, makes its sockets in the cluster's network."""
        with entered(f"/proc/{self._first}/ns/net"):
            yield

    def socket_for_names(self) -> socket.socket:
        """Where the pods' resolvers ask."""
        with self.within():
            sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        sock.bind((ADDRESS, 53))
        return sock

    def client(self, *command: object) -> list[str]:
        """The command that does this in the cluster's network, and ends with this process."""
        enter = ["setpriv", "--pdeathsig", "KILL", "nsenter", "--target", str(self._first), "--net", "--"]
        return [*enter, *map(str, command)]

    def command(self, *command: object) -> list[str]:
        """The command that does this on the node, where /var and /run are its own."""
        enter = ["nsenter", "--target", str(self._first), "--net", "--mount", "--pid", "--wdns=/", "--"]
        return [*enter, *map(str, command)]

    def run(self, *command: object) -> str:
        return self._said(self.command(*command))

    def _said(self, command: list[str]) -> str:
        done = subprocess.run(command, capture_output=True, text=True, timeout=120)
        assert done.returncode == 0, done.stderr
        return done.stdout

    def kubectl_command(self, *arguments: object) -> list[str]:
        return self.client(self.binary, "kubectl", "--kubeconfig", self.pki / "admin.kubeconfig", *arguments)

    def kubectl(self, *arguments: object) -> str:
        return self._said(self.kubectl_command(*arguments))

    @contextmanager
    def another_api_server(self, *options: str) -> Iterator[str]:
        """A second API server of the same cluster, with these options; its URL.  It is killed in the end."""
        parts = json.loads((self._folder / "plan.json").read_text())["parts"]
        own = ["--secure-port=6444", "--endpoint-reconciler-type=none", *options]
        url = f"https://{ADDRESS}:6444"
        with (self._folder / "log" / "another-apiserver").open("wb") as log:
            process = subprocess.Popen(self.client(*parts["kube-apiserver"], *own), stdout=log, stderr=log)
        try:
            ready = self.kubectl_command("--server", url, "get", "--raw", "/readyz")
            while subprocess.run(ready, capture_output=True, timeout=60).returncode:
                assert process.poll() is None, self.log("another-apiserver")[-4000:]
            yield url
        finally:
            process.kill()
            process.wait()

    def compact(self) -> None:
        """etcd forgets what objects were: it keeps what they are."""
        revision = self._ask_etcd("range", {"key": "AA=="})["header"]["revision"]
        self._ask_etcd("compaction", {"revision": revision, "physical": True})

    def _ask_etcd(self, path: str, body: dict) -> dict:
        connection = HTTPConnection("127.0.0.1", 2379, timeout=60)
        with self.within():
            connection.connect()
        connection.request("POST", f"/v3/kv/{path}", json.dumps(body))
        answer = connection.getresponse()
        document = json.loads(answer.read())
        assert answer.status == HTTPStatus.OK, document
        connection.close()
        return document

    def trust_plain_http(self, registry: str) -> None:
        """Images of this host and port come without TLS."""
        folder = self._folder / "registries" / registry
        folder.mkdir(parents=True)
        (folder / "hosts.toml").write_text(f'[host."http://{registry}"]\n')

    def ctr(self, *arguments: object) -> str:
        return self.run("ctr", "--address", self.socket, "--namespace", "k8s.io", *arguments)

    def ran_s(self, container_id: str) -> float:
        """How long a container ran that has ended: to the millisecond, where the API server knows seconds."""
        own = f"containerd/io.containerd.grpc.v1.cri/containers/{container_id.rpartition('/')[2]}/status"
        status = json.loads((self._folder / own).read_text())
        return (status["FinishedAt"] - status["StartedAt"]) / 1e9

    def log(self, part: str) -> str:
        return (self._folder / "log" / part).read_text(errors="replace")

    def _write_certificates(self) -> None:
        authority = trustme.CA()
        authority.cert_pem.write_to_path(self.pki / "ca.crt")
        self._write(self.pki / "ca.key", authority.private_key_pem.bytes())
        who = {
            "admin": ("kubernetes-admin", "system:masters"),
            "controllers": ("system:kube-controller-manager", "system:masters"),
            "scheduler": ("system:kube-scheduler", "system:kube-scheduler"),
            "proxy": ("system:kube-proxy", "system:node-proxier"),
            "kubelet": ("system:node:node1", "system:nodes"),
            "apiserver": ("kube-apiserver", "system:masters"),
        }
        names = ("node1", "localhost", "127.0.0.1", ADDRESS, "10.96.0.1", "kubernetes.default.svc")
        for name, (common, organization) in who.items():
            leaf = authority.issue_cert(*names, common_name=common, organization_name=organization)
            self._write(self.pki / f"{name}.crt", leaf.cert_chain_pems[0].bytes())
            self._write(self.pki / f"{name}.key", leaf.private_key_pem.bytes())
            self._write(self.pki / f"{name}.kubeconfig", json.dumps(self._kubeconfig(name)).encode())

    def _write(self, path: Path, data: bytes) -> None:
        path.touch(mode=0o600)
        path.write_bytes(data)

    def _kubeconfig(self, name: str) -> dict:
        files = {"client-certificate": f"{self.pki}/{name}.crt", "client-key": f"{self.pki}/{name}.key"}
        return {
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [{"name": "c", "cluster": {"server": API, "certificate-authority": f"{self.pki}/ca.crt"}}],
            "users": [{"name": "u", "user": files}],
            "contexts": [{"name": "c", "context": {"cluster": "c", "user": "u"}}],
            "current-context": "c",
        }

    def _write_plan(self) -> None:
        own, pki = self._folder, self.pki
        (own / "resolv.conf").write_text(f"nameserver {ADDRESS}\n")
        (own / "net.d" / "pods.conflist").write_text(json.dumps(self._pod_network()))
        (own / "containerd.toml").write_text(self._containerd())
        (own / "kubelet.yaml").write_text(yaml.safe_dump(self._kubelet()))
        (own / "proxy.yaml").write_text(yaml.safe_dump(self._proxy()))
        own_login = [f"--{kind}={pki}/controllers.kubeconfig" for kind in _LOGINS]
        parts = {
            "etcd": ["--data-dir", f"{own}/etcd", "--unsafe-no-fsync", "--listen-peer-urls", "http://127.0.0.1:2380"],
            "containerd": ["containerd", "--config", f"{own}/containerd.toml"],
            "kube-apiserver": [
                "--etcd-servers=http://127.0.0.1:2379",
                f"--advertise-address={ADDRESS}",
                f"--service-cluster-ip-range={SERVICES}",
                "--authorization-mode=Node,RBAC",
                "--enable-admission-plugins=NodeRestriction",
                "--allow-privileged=true",
                f"--client-ca-file={pki}/ca.crt",
                f"--tls-cert-file={pki}/apiserver.crt",
                f"--tls-private-key-file={pki}/apiserver.key",
                f"--kubelet-client-certificate={pki}/apiserver.crt",
                f"--kubelet-client-key={pki}/apiserver.key",
                f"--kubelet-certificate-authority={pki}/ca.crt",
                "--kubelet-preferred-address-types=InternalIP",
                "--service-account-issuer=https://kubernetes.default.svc.cluster.local",
                f"--service-account-key-file={pki}/apiserver.key",
                f"--service-account-signing-key-file={pki}/apiserver.key",
            ],
            "kube-controller-manager": [
                *own_login,
                f"--service-account-private-key-file={pki}/apiserver.key",
                f"--root-ca-file={pki}/ca.crt",
                f"--cluster-signing-cert-file={pki}/ca.crt",
                f"--cluster-signing-key-file={pki}/ca.key",
                "--use-service-account-credentials",
                "--leader-elect=false",
            ],
            "kube-scheduler": [
                *(one.replace("controllers", "scheduler") for one in own_login),
                "--leader-elect=false",
            ],
            "kubelet": [
                f"--config={own}/kubelet.yaml",
                f"--kubeconfig={pki}/kubelet.kubeconfig",
                "--hostname-override=node1",
                f"--node-ip={ADDRESS}",
                f"--root-dir={own}/kubelet",
                f"--cert-dir={own}/pki",
            ],
            "kube-proxy": [f"--config={own}/proxy.yaml", "--hostname-override=node1"],
        }
        commands = {
            name: options if name == "containerd" else [str(self.binary), name, *options]
            for name, options in parts.items()
        }
        plan = {"address": ADDRESS, "ready": f"{API}/readyz", "parts": commands}
        (own / "plan.json").write_text(json.dumps(plan, indent=1))

    def _pod_network(self) -> dict:
        ranges = {"type": "host-local", "ranges": [[{"subnet": PODS}]], "routes": [{"dst": "0.0.0.0/0"}]}
        bridge = {"type": "bridge", "bridge": "cni0", "isGateway": True, "hairpinMode": True, "ipam": ranges}
        return {"cniVersion": "0.4.0", "name": "pods", "plugins": [bridge]}

    def _containerd(self) -> str:
        own = self._folder
        return f"""
version = 2
root = "{own}/containerd"
state = "/run/lading-cluster"
[grpc]
  address = "{self.socket}"
[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = "localhost/pause:1"
  restrict_oom_score_adj = true
  disable_apparmor = true
  [plugins."io.containerd.grpc.v1.cri".containerd]
    default_runtime_name = "runc"
    [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
      runtime_type = "io.containerd.runc.v2"
      [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc.options]
        SystemdCgroup = false
  [plugins."io.containerd.grpc.v1.cri".cni]
    bin_dir = "/usr/lib/cni"
    conf_dir = "{own}/net.d"
  [plugins."io.containerd.grpc.v1.cri".registry]
    config_path = "{own}/registries"
"""

    def _kubelet(self) -> dict:
        return {
            "apiVersion": "kubelet.config.k8s.io/v1beta1",
            "kind": "KubeletConfiguration",
            "address": ADDRESS,
            "authentication": {
                "anonymous": {"enabled": False},
                "webhook": {"enabled": True},
                "x509": {"clientCAFile": f"{self.pki}/ca.crt"},
            },
            "authorization": {"mode": "Webhook"},
            "tlsCertFile": f"{self.pki}/kubelet.crt",
            "tlsPrivateKeyFile": f"{self.pki}/kubelet.key",
            "containerRuntimeEndpoint": f"unix://{self.socket}",
            "cgroupDriver": "cgroupfs",
            "cgroupRoot": f"/{self._groups}",
            # Hybrid cgroups, and machines that may not lower a process's oom_score_adj.
            "failCgroupV1": False,
            "oomScoreAdj": 0,
            "failSwapOn": False,
            "clusterDNS": [ADDRESS],
            "clusterDomain": "cluster.local",
            "resolvConf": f"{self._folder}/resolv.conf",
            "makeIPTablesUtilChains": False,
            # The disk is the machine's, and others fill it.
            "imageGCHighThresholdPercent": 100,
            "imageGCLowThresholdPercent": 99,
            "evictionHard": {
                "memory.available": "100Mi",
                "nodefs.available": "1%",
                "imagefs.available": "1%",
                "pid.available": "5%",
            },
            # Else a node is under pressure for five minutes after it was.
            "evictionPressureTransitionPeriod": "1s",
            "syncFrequency": "10s",
            # How often volumes are measured: what is over its limit is evicted then.
            "volumeStatsAggPeriod": "10s",
            "registryPullQPS": 0,
            # The same image comes by import, and in one test from a registry that asks for a login.
            "imagePullCredentialsVerificationPolicy": "NeverVerify",
        }

    def _proxy(self) -> dict:
        return {
            "apiVersion": "kubeproxy.config.k8s.io/v1alpha1",
            "kind": "KubeProxyConfiguration",
            "clientConnection": {"kubeconfig": f"{self.pki}/proxy.kubeconfig"},
            "clusterCIDR": PODS,
            "mode": "iptables",
            "oomScoreAdj": 0,
            "conntrack": {"maxPerCore": 0, "min": 0, "tcpEstablishedTimeout": "0s", "tcpCloseWaitTimeout": "0s"},
        }


_LOGINS = ("kubeconfig", "authentication-kubeconfig", "authorization-kubeconfig")


def _children(pid: int) -> list[str]:
    try:
        return Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    except OSError:
        return []


def _hierarchies() -> list[Path]:
    """Where control groups are: one tree, or one for each controller."""
    root = Path("/sys/fs/cgroup")
    if (root / "cgroup.controllers").exists():
        return [root]
    return [folder for folder in root.iterdir() if folder.is_dir() and not folder.is_symlink()]


def _remove_groups(folder: Path) -> None:
    if folder.exists():
        for parent, _, _ in os.walk(folder, topdown=False):
            os.rmdir(parent)
