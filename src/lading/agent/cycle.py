"""One cycle of one delivery, in a thread of its own, which the loop can stop."""

import threading
import time
from collections.abc import Callable

from lading.agent.reconcile import Outcome
from lading.errors import Interrupted, LadingError, internal_error
from lading.session import Session
from lading.settings.agent import Delivery, share_a_folder
from lading.system.disk import disk_error
from lading.system.threads import no_thread, start_thread

_STOP_AGAIN_S = 0.2


class Cycle:
    """One cycle of one delivery.  At its end its thread sets ``outcome`` or ``error``, then calls ``ended``.

    The thread is a daemon, like those of a transfer: a call that hangs in a file system must not keep the process
    from ending.  It may end anywhere in its work, as a killed process does.
    """

    def __init__(
        self, delivery: Delivery, session: Session, take: Callable[[], Outcome], ended: Callable[[], None]
    ) -> None:
        self.delivery = delivery
        self.outcome: Outcome | None = None
        self.error: LadingError | Interrupted | None = None
        self.is_stopped = False
        self._session, self._take, self._ended = session, take, ended
        self._thread = threading.Thread(target=self._run, name=f"lading-cycle-{delivery.name}", daemon=True)

    def begin(self) -> None:
        """Start the thread; if the system refuses it, the cycle has failed and is tried again later."""
        if not start_thread(self._thread):
            self.error = no_thread("for this delivery")
            self._ended()

    @property
    def is_over(self) -> bool:
        """Whether the cycle has ended; waits for its thread to end, too."""
        over = self.outcome is not None or self.error is not None
        if over and self._thread.is_alive():
            self._thread.join()
        return over

    def excludes(self, delivery: Delivery) -> bool:
        """Whether the delivery must wait for the end of this cycle."""
        return self.delivery.name == delivery.name or share_a_folder(self.delivery, delivery)

    def stop(self) -> None:
        """Interrupt the cycle.  Call this again until it is over: a transfer that fails starts again."""
        self.is_stopped = True
        self._session.run.stop.set()
        self._session.http.interrupt()

    def wait(self, until_s: float) -> None:
        """Stop the cycle, and wait for its end until ``until_s`` (``time.monotonic``) at the latest."""
        while self._thread.is_alive() and time.monotonic() < until_s:
            self.stop()
            self._thread.join(_STOP_AGAIN_S)

    def _run(self) -> None:
        try:
            with self._session:
                self.outcome = self._take()
        except (LadingError, Interrupted) as error:
            self.error = error
        except OSError as error:
            self.error = disk_error(error, error.filename or self.delivery.destination)
        except Exception as error:  # noqa: BLE001 - one delivery's defect must not end all others
            self.error = internal_error(error)
        finally:
            self._ended()
