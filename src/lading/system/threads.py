"""Starting threads where their number may be limited."""

import threading
from collections.abc import Callable

from lading.errors import Unavailable
from lading.system.cgroup import thread_limits


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
