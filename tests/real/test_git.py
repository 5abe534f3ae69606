"""git as it is served: nginx with Basic authentication and TLS before fcgiwrap and ``git http-backend``.

The Git LFS server is the tests' own: git-lfs, the official client, pushes to it and clones from it.
"""

import os
import subprocess
from pathlib import Path

import pytest

from fakes.certificates import Authority
from fakes.faulty_http import FaultyServer
from fakes.git_server import ENVIRONMENT, PASSWORD, USER, GitServer
from fakes.nginx import free_port, nginx
from fakes.trees import MIB, content, facts, read_tree, told, whole_manifest, write_tree
from lading.errors import NotAllowed, NotFound
from lading.settings.limits import Network

BACKEND = "/usr/lib/git-core/git-http-backend"
LARGE = {"weights/large.bin": content(20 * MIB), "weights/empty.bin": b"", "adapter.bin": content(MIB, seed=2)}
FILES = {
    "config.json": b"{}",
    "empty": b"",
    "plain/big": content(5 * MIB, seed=3),
    "plain/lines": b"\n".join(b"line %d" % number for number in range(50_000)),
    "plain/more-lines": b"\n".join(b"line %d" % number for number in range(50_001)),
    "with space/and+plus & more=%41?#": b"characters that URLs escape",
    "unicode/gr\u00fc\u00dfe-\u6a21\u578b-\U0001f600.txt": b"precomposed",
} | {f"small/{number % 7}/{number}.json": b"%d" % number for number in range(500)}
ALLOWED = {"GIT_USERNAME": USER, "GIT_PASSWORD": PASSWORD}

SITE = """
    server {{
      listen 127.0.0.1:{port} ssl;
      ssl_certificate {certificate};
      ssl_certificate_key {key};
      auth_basic "git";
      auth_basic_user_file {folder}/users;
      location ~ /info/lfs/ {{ proxy_pass {lfs}; }}
      location /lfs-objects/ {{ auth_basic off; proxy_pass {lfs}; }}
      location ~ ^/(git|dropped)/ {{
        fastcgi_pass unix:{folder}/fcgi;
        fastcgi_buffering off;
        fastcgi_param SCRIPT_FILENAME {backend};
        fastcgi_param GIT_PROJECT_ROOT {folder}/git;
        fastcgi_param GIT_HTTP_EXPORT_ALL "";
        fastcgi_param GIT_PROTOCOL $git_protocol;
        fastcgi_param HTTP_CONTENT_ENCODING $http_content_encoding;
        fastcgi_param PATH_INFO $git_path;
        fastcgi_param QUERY_STRING $query_string;
        fastcgi_param REQUEST_METHOD $request_method;
        fastcgi_param CONTENT_TYPE $content_type;
        fastcgi_param CONTENT_LENGTH $content_length;
        fastcgi_param REMOTE_USER $remote_user;
        fastcgi_param REMOTE_ADDR $remote_addr;
      }}
    }}
    map $uri $git_path {{ ~^/[a-z]+(?<rest>/.*)$ $rest; }}
    map $uri $git_protocol {{ ~^/git/ $http_git_protocol; default ""; }}
"""


class Host:
    """The running servers: ``url`` of the repository, ``bundle`` of who signed their certificate."""

    def __init__(self, folder: Path, port: int, bundle: str) -> None:
        self.folder = folder
        self.url = f"https://127.0.0.1:{port}/git/model.git"
        self.bundle = bundle
        self.network = Network(ca_files=(bundle,))
        (folder / "home").mkdir()
        self.environment = ENVIRONMENT | {"HOME": str(folder / "home"), "GIT_SSL_CAINFO": bundle}

    def git(self, *arguments: str | Path, cwd: Path) -> str:
        done = subprocess.run(["git", *arguments], cwd=cwd, env=self.environment, capture_output=True, check=False)
        assert done.returncode == 0, done.stderr.decode()
        return done.stdout.decode().strip()

    def with_user(self) -> str:
        return self.url.replace("://", f"://{USER}:{PASSWORD.replace(' ', '%20')}@")


@pytest.fixture(scope="module")
def host(program, tmp_path_factory):
    # A short name: that of a socket may have 107 bytes.
    folder = tmp_path_factory.mktemp("git")
    authority = Authority(folder)
    certificate, key = authority.write_client(folder, "127.0.0.1")
    port = free_port()
    with FaultyServer() as server:
        (folder / "git").mkdir()
        origin = GitServer(server, folder / "git")
        origin.objects_url = f"https://127.0.0.1:{port}/lfs-objects"
        # With the header Git-Protocol, and without it.
        server.routes["/dropped/"] = server.routes["/git/"]
        origin.create()
        (folder / "users").write_text(f"{USER}:{{PLAIN}}{PASSWORD}\n")
        site = SITE.format(port=port, folder=folder, certificate=certificate, key=key, lfs=server.url, backend=BACKEND)
        fcgiwrap = subprocess.Popen([program("fcgiwrap"), "-s", f"unix:{folder}/fcgi"], env=ENVIRONMENT)
        try:
            with nginx(program("nginx"), folder, port, site):
                yield Host(folder, port, authority.bundle)
        finally:
            fcgiwrap.terminate()
            fcgiwrap.wait()


@pytest.fixture(scope="module")
def commit(host, program):
    """A commit with files in Git LFS, pushed by the official clients."""
    assert program("git-lfs")
    work = host.folder / "git/model.git.work"
    host.git("lfs", "install", "--local", cwd=work)
    host.git("lfs", "track", "*.bin", cwd=work)
    write_tree(work, FILES | LARGE)
    os.symlink("config.json", work / "link.json")
    host.git("add", "--all", cwd=work)
    host.git("commit", "--quiet", "--message", "m", cwd=work)
    host.git("tag", "v1", cwd=work)
    host.git("push", "--quiet", host.with_user(), "HEAD:main", "v1", cwd=work)
    return host.git("rev-parse", "HEAD", cwd=work)


@pytest.fixture
def destination(tmp_path):
    return tmp_path / "destination"


@pytest.mark.parametrize("place", ["git", "dropped"])
@pytest.mark.parametrize("filters", ["true", "false"])
def test_lading_delivers_what_git_and_git_lfs_check_out(host, commit, destination, tmp_path, pull, filters, place):
    host.git("config", "uploadpack.allowFilter", filters, cwd=host.folder / "git/model.git")
    host.git(
        "clone",
        "--quiet",
        "--config",
        "filter.lfs.smudge=git-lfs smudge -- %f",
        host.with_user(),
        "clone",
        cwd=tmp_path,
    )
    expected = facts(tmp_path / "clone")
    expected = {path: fact for path, fact in expected.items() if not path.startswith(".git/")}
    url = host.url.replace("/git/", f"/{place}/")
    manifest = pull(url, destination, network=host.network, variables=ALLOWED)
    assert told(manifest) == told(whole_manifest(destination)) == expected
    assert {path: (destination / path).read_bytes() for path in LARGE} == LARGE
    assert manifest.resolved == f"git+{url}@{commit}"
    verified = {file.path: [digest.algorithm for digest in file.verified] for file in manifest.files}
    assert verified["weights/large.bin"] == ["sha256"]
    assert verified["plain/big"] == ["git-sha1"]


@pytest.mark.parametrize("place", ["git", "dropped"])
def test_each_place_speaks_its_version_of_the_protocol(host, commit, place):
    url = f"{host.with_user().replace('/git/', f'/{place}/')}"
    environment = host.environment | {"GIT_TRACE_PACKET": "1"}
    done = subprocess.run(["git", "ls-remote", url], env=environment, capture_output=True, check=True)
    assert (b"version 2" in done.stderr) is (place == "git")


def test_a_tag_and_a_folder_of_it_come(host, commit, destination, pull):
    pull(f"git+{host.url}@v1#subdirectory=weights", destination, network=host.network, variables=ALLOWED)
    assert read_tree(destination) == {"large.bin": LARGE["weights/large.bin"], "empty.bin": b""}


def test_an_object_in_git_lfs_comes_in_ranges(host, commit, destination, pull):
    uri = f"git+{host.with_user()}#subdirectory=weights/large.bin"
    pull(uri, destination, network=host.network, range_bytes=4 * MIB)
    assert read_tree(destination) == {"large.bin": LARGE["weights/large.bin"]}


@pytest.mark.parametrize("variables", [{}, {"GIT_USERNAME": USER, "GIT_PASSWORD": "wrong"}])
def test_who_may_not_is_refused(host, commit, destination, pull, variables):
    with pytest.raises(NotAllowed):
        pull(host.url, destination, network=host.network, variables=variables)
    assert not destination.exists()


def test_what_is_not_there_is_not_found(host, commit, destination, pull):
    for uri in (f"git+{host.url}@v2", host.url.replace("model", "none"), f"git+{host.url}#subdirectory=none"):
        with pytest.raises(NotFound):
            pull(uri, destination, network=host.network, variables=ALLOWED)
    assert not destination.exists()
