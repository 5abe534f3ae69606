"""SIGTERM ends the main thread's work, even in a system call that waits or in code that swallows exceptions."""

import os
import signal
import threading
import weakref
from collections.abc import Callable
from types import FrameType
from typing import Self

from lading.errors import Interrupted
from lading.system.threads import start_thread

_LOOK_AGAIN_S = 0.05


class Sigterm:
    """Raises ``Interrupted`` in the main thread for SIGTERM, within a ``with`` block of that thread.

    A second signal raises nothing while the first exception is unwinding: clean-up is not disturbed.
    """

    def __init__(self) -> None:
        self._raised: Callable[[], Interrupted | None] = lambda: None

    def __enter__(self) -> Self:
        self._before = signal.signal(signal.SIGTERM, self._raise)
        return self

    def __exit__(self, *_: object) -> None:
        signal.signal(signal.SIGTERM, self._before)

    def insist(self) -> None:
        """Repeat the signal until the main thread has raised; after the block it is ignored.

        Python runs a handler between two of its instructions.  A signal after the last of them and before a
        system call that waits would be handled only when that call ends (``signal.set_wakeup_fd`` is made for
        this), and an exception within an import may be lost: ``_elementtree`` turns it into an ImportError.
        Both happened, once in thirty runs that were stopped early.
        """
        self._before = signal.SIG_IGN
        read_end, write_end = os.pipe()
        os.set_blocking(write_end, False)
        signal.set_wakeup_fd(write_end, warn_on_full_buffer=False)
        start_thread(threading.Thread(target=self._repeat, args=(read_end,), name="signals", daemon=True))

    def _raise(self, _number: int, _frame: FrameType | None) -> None:
        if self._raised() is None:
            error = Interrupted("stopped by a signal", hint="run it again to resume")
            self._raised = weakref.ref(error)
            try:
                raise error
            finally:
                # The error's traceback refers to this frame, which would refer to the error: a cycle.
                del error

    def _repeat(self, read_end: int) -> None:
        main = threading.main_thread().ident
        while os.read(read_end, 1)[0] != signal.SIGTERM:
            pass
        while main and signal.getsignal(signal.SIGTERM) == self._raise:
            if self._raised() is None:
                # A signal ends a system call that waits.
                signal.pthread_kill(main, signal.SIGTERM)
            threading.Event().wait(_LOOK_AGAIN_S)
