"""A folder of this machine."""

from contextlib import contextmanager


@contextmanager
def tree_by_path(request):
    yield str(request.getfixturevalue("tree")), {}


@contextmanager
def tree_by_uri(request):
    yield request.getfixturevalue("tree").as_uri(), {}


TREES = {"path": tree_by_path, "file": tree_by_uri}
