"""A process that dies before any change that it makes to the file system."""

import os
import signal
import sys
import threading
import warnings
from collections.abc import Callable

from lading.destination import publish
from lading.store import store

_CHANGES = ("rename", "replace", "unlink", "remove", "rmdir", "mkdir", "link", "chmod", "fsync")


class Killer:
    """Counts changes to the file system, and kills the process before the one that it was told."""

    def __init__(self, kill_at: int) -> None:
        self._left = kill_at
        self._lock = threading.Lock()

    def wrap(self, function: Callable[..., object]) -> Callable[..., object]:
        def counted(*args: object, **kwargs: object) -> object:
            with self._lock:
                if self._left == 0:
                    os.kill(os.getpid(), signal.SIGKILL)
                self._left -= 1
            return function(*args, **kwargs)

        return counted

    def wrap_open(self, function: Callable[..., int]) -> Callable[..., object]:
        counted = self.wrap(function)
        return lambda path, flags, *rest, **kw: (counted if flags & os.O_CREAT else function)(path, flags, *rest, **kw)


def run_and_kill_at(number: int, action: Callable[[], object], *, creating: bool = False) -> bool:
    """Run ``action`` in a child that dies before its ``number``-th change; true if it came through.

    With ``creating``, to open a file that may be made is a change, too.
    """
    with warnings.catch_warnings():
        # Python 3.12 warns of threads at a fork; none of the test's own holds a lock here.
        warnings.simplefilter("ignore", DeprecationWarning)
        child = os.fork()
    if child == 0:
        try:
            killer = Killer(number)
            changes = [(os, name) for name in _CHANGES] + [(publish, "exchange"), (store, "materialize_file")]
            for module, name in changes:
                setattr(module, name, killer.wrap(getattr(module, name)))
            if creating:
                setattr(os, "open", killer.wrap_open(os.open))  # noqa: B010 - typed by its one signature
            action()
        except BaseException as error:  # noqa: BLE001 - the child must not return into the test's process
            print(repr(error), file=sys.__stderr__)
            os._exit(1)
        os._exit(0)
    _, status = os.waitpid(child, 0)
    if os.WIFSIGNALED(status):
        assert os.WTERMSIG(status) == signal.SIGKILL
        return False
    assert os.waitstatus_to_exitcode(status) == 0, "the delivery itself failed"
    return True
