"""SIGTERM ends what the main thread does, whatever it waits for and whoever swallows an exception."""

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

    A second one is not raised while the first is on its way: clean-up is left alone.
    """

    def __init__(self) -> None:
        self._raised: Callable[[], Interrupted | None] = lambda: None

    def __enter__(self) -> Self:
        self._before = signal.signal(signal.SIGTERM, self._raise)
        return self

    def __exit__(self, *_: object) -> None:
        signal.signal(signal.SIGTERM, self._before)

    def insist(self) -> None:
        """For the rest of the process: let the main thread hear of it at once; after the block it is ignored.

        Python runs a handler between two of its instructions.  What comes after the last of them and
        before a system call that waits would be heard when that call ends (``signal.set_wakeup_fd``
        is made for it), and what is raised within an import may be lost: ``_elementtree`` makes an
        ImportError of it.  Both were met, once in thirty runs that were stopped early.
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
                # Its traceback holds this frame: it would keep itself alive.
                del error

    def _repeat(self, read_end: int) -> None:
        main = threading.main_thread().ident
        while os.read(read_end, 1)[0] != signal.SIGTERM:
            pass
        while main and signal.getsignal(signal.SIGTERM) == self._raise:
            if self._raised() is None:
                # It ends a system call that waits.
                signal.pthread_kill(main, signal.SIGTERM)
            threading.Event().wait(_LOOK_AGAIN_S)
