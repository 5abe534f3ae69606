"""Starting threads where their number may be limited, and what priority they have."""

import contextlib
import ctypes
import os
import threading
from collections.abc import Callable

from lading.errors import Unavailable
from lading.system.cgroup import thread_limits

# ioprio_set(2) has no function in libc, and its number depends on the machine.
_IOPRIO_SET = {"x86_64": 251, "aarch64": 30}
_OF_A_THREAD, _IDLE = 1, 3 << 13


def start_thread(thread: threading.Thread) -> bool:
    """Start a thread; false if the system refuses one more."""
    try:
        thread.start()
    except RuntimeError:
        # Python raises it for EAGAIN (pthread_create(3)), without a number.
        return False
    return True


def no_thread(what: str) -> Unavailable:
    """The error when a thread that is needed cannot be started."""
    return Unavailable(f"the system refuses to start a thread {what}", hint=f"raise its limit: {thread_limits()}")


def start_daemon(name: str, run: Callable[[], None]) -> None:
    """Start a daemon thread, which ends with the process; ``Unavailable`` if the system refuses it."""
    if not start_thread(threading.Thread(target=run, name=f"lading-{name}", daemon=True)):
        raise no_thread(f"for {name}")


def become_idle() -> None:
    """Give this thread the lowest priority for CPU and disk, as far as the system lets it."""
    with contextlib.suppress(OSError):
        os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), 19)
    number = _IOPRIO_SET.get(os.uname().machine)
    if number is not None:
        ctypes.CDLL(None).syscall(number, _OF_A_THREAD, 0, _IDLE)
