"""Starting threads where their number may be limited."""

import threading
from collections.abc import Callable

from lading.errors import Unavailable
from lading.system.cgroup import thread_limits


def start_thread(thread: threading.Thread) -> bool:
    """Start a thread; false where the system refuses one more."""
    try:
        thread.start()
    except RuntimeError:
        # All that Python says of EAGAIN (pthread_create(3)).
        return False
    return True


def no_thread(what: str) -> Unavailable:
    """The error of a thread that cannot be started, and without which nothing goes on."""
    return Unavailable(f"the system refuses to start a thread {what}", hint=f"raise its limit: {thread_limits()}")


def start_daemon(name: str, run: Callable[[], None]) -> None:
    """Start a thread that nobody waits for, and which ends with the process; ``Unavailable`` where it is refused."""
    if not start_thread(threading.Thread(target=run, name=f"lading-{name}", daemon=True)):
        raise no_thread(f"for {name}")
