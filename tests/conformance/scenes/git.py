"""git over smart HTTP, with Git LFS."""

import atexit
import mmap
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache, partial
from pathlib import Path
from tempfile import TemporaryDirectory, mkdtemp

from conformance.scene import BIG, FILES, SHORT, Scene
from fakes.faulty_http import FaultyServer, Request, probes
from fakes.git_server import PASSWORD, USER, GitServer, basic, new_repository


@cache
def _git_repository(*, lfs: bool) -> Path:
    folder = Path(mkdtemp())
    atexit.register(shutil.rmtree, folder)
    model = new_repository(folder, "model.git")
    model.commit(FILES | ({"weights/big.bin": model.pointer(BIG)} if lfs else {}))
    return folder


@contextmanager
def faults(server: FaultyServer, *, lfs: bool) -> Iterator[Scene]:
    with TemporaryDirectory() as folder:
        origin = GitServer(server, Path(folder))
        origin.private = True
        model = origin.create(like=_git_repository(lfs=lfs))
        origin.keep(BIG)

        def put(data: bytes) -> None:
            origin.keep(data)
            model.commit({"weights/big.bin": model.pointer(data) if lfs else data})

        def reads(request: Request) -> bool:
            # The second time: the first only asks how large it is.
            wants_blob = b"command=fetch" in request.body and b"deepen" not in request.body
            return wants_blob and len([each for each in server.requests if each.body == request.body]) > 1

        def reads_object(request: Request) -> bool:
            return "/lfs-objects/" in request.path and not probes(request)

        fetches = reads_object if lfs else reads
        yield Scene(
            server,
            model.url,
            lists=lambda request: not fetches(request),
            reads=fetches,
            put=put,
            settings={"variables": {"GIT_USERNAME": USER, "GIT_PASSWORD": PASSWORD}},
            secret=basic(USER, PASSWORD),
            # A process answers, which takes its time on a busy machine.
            limits=SHORT._replace(stall_s=1.5),
        )


@contextmanager
def tree(request):
    folder = request.getfixturevalue("tmp_path")
    with FaultyServer() as server, request.getfixturevalue("tree").joinpath("weights.bin").open("rb") as large:
        origin = GitServer(server, folder)
        model = origin.create()
        shutil.copytree(
            request.getfixturevalue("tree"), model.work, dirs_exist_ok=True, ignore=lambda *_: ["weights.bin"]
        )
        # As models are kept in git: the large file in Git LFS.
        content = memoryview(mmap.mmap(large.fileno(), 0, access=mmap.ACCESS_READ))
        model.commit({"weights.bin": model.pointer(content)})
        origin.keep(content)
        yield model.url, {}
    shutil.rmtree(model.bare)
    shutil.rmtree(model.work)


FAULTS = {"git": partial(faults, lfs=False), "git-lfs": partial(faults, lfs=True)}
TREES = {"git": tree}
