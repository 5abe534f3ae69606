"""Every way a delivery can fail.  Imports nothing of lading.

    LadingError            internal      1
    ├── UsageError         usage         2   a URI, option or setting is wrong
    ├── NotFound           not-found     3   no such model, version or key
    │   └── HostNotFound  not-found     3   no host of this name, so nothing is known of what was asked for
    ├── NotAllowed         not-allowed   4   credentials, certificates or file permissions refuse
    ├── Unavailable        unavailable   5   may work later (the only family that is retried)
    │   ├── TryAtOnce     unavailable 5  the next attempt differs, and needs no wait
    │   ├── Stalled        stalled       5   no byte for too long; retried on a new connection
    │   ├── OriginChanged  changed       5   not the object that was listed; the file restarts
    │   ├── NotRelayed    unavailable 5  a relay does not give the file: its origin is to be asked
    │   └── DeadlineExceeded deadline    5   the time allowed for the whole delivery is over
    ├── IntegrityError     integrity     6   bytes or trees that do not match what was declared
    │   └── Untrusted     untrusted     6   not signed as the policy asks for, or not what was signed
    ├── NoSpace            no-space      7
    └── Unsupported        unsupported   8   lading does not do this
    Interrupted            interrupted 143   a signal; the next run resumes

Interrupted is not a LadingError, as KeyboardInterrupt is not an Exception: code that handles a failed request must
not handle a signal.

The number is the exit code of the process.  A message says what failed and where; the hint says what to try.
"""

import os

_HERE = os.path.dirname(os.path.abspath(__file__)) + os.sep
_MOST_FRAMES = 12


class LadingError(Exception):
    """A failure with a code for machines, a sentence for people and, where one is known, a hint."""

    code = "internal"
    exit_code = 1
    retryable = False

    def __init__(self, message: str, *, hint: str = "", retry_after_s: float | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint
        self.retry_after_s = retry_after_s

    def __str__(self) -> str:
        return self.message

    def rephrased(self, *, message: str = "", hint: str = "") -> "LadingError":
        """The same failure with another message or hint, to be raised from this one."""
        other = type(self)(message or self.message, hint=hint or self.hint, retry_after_s=self.retry_after_s)
        # It may have been tried often enough already.
        other.retryable = self.retryable
        return other


class UsageError(LadingError):
    """A URI, an option or a setting is wrong."""

    code = "usage"
    exit_code = 2


class NotFound(LadingError):
    """There is no such model, version, key, file or host."""

    code = "not-found"
    exit_code = 3


class HostNotFound(NotFound):
    """No host of this name can be found, so nothing is known of what was asked for."""


class NotAllowed(LadingError):
    """Credentials, certificates or permissions refuse."""

    code = "not-allowed"
    exit_code = 4


class Unavailable(LadingError):
    """It may work later."""

    code = "unavailable"
    exit_code = 5
    retryable = True


class TryAtOnce(Unavailable):
    """The next attempt uses another credential or another server, so that it need not wait."""

    def __init__(self, message: str, *, hint: str = "", retry_after_s: float | None = 0.0) -> None:
        super().__init__(message, hint=hint, retry_after_s=retry_after_s)


class Stalled(Unavailable):
    """No byte came for too long."""

    code = "stalled"


class OriginChanged(Unavailable):
    """The origin no longer has the object that was listed."""

    # Asking again for the same validator cannot succeed: the delivery must list anew.
    code = "changed"
    retryable = False
    # Which file it is about, where that is known, with the validators that the listing and the answer have of it.
    origin = path = listed = answered = ""


class NotRelayed(Unavailable):
    """The relay of a file does not give it: the origin is to be asked, whose own answer counts."""

    retryable = False


class DeadlineExceeded(Unavailable):
    """The time allowed for the whole delivery is over."""

    code = "deadline"
    retryable = False


class IntegrityError(LadingError):
    """Bytes or trees do not match what was declared."""

    code = "integrity"
    exit_code = 6


class Untrusted(IntegrityError):
    """It is not signed by those whom the policy trusts, or is not what they signed."""

    code = "untrusted"


class NoSpace(LadingError):
    """The file system is full, or too small."""

    code = "no-space"
    exit_code = 7
    # Which destination it is about, where that is known.
    folder = ""


class Unsupported(LadingError):
    """lading does not do this."""

    code = "unsupported"
    exit_code = 8


class Interrupted(BaseException):
    """A signal asked to stop; the next run resumes."""

    code = "interrupted"
    exit_code = 143

    def __init__(self, message: str, *, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint


def lading_error(error: Exception) -> LadingError:
    """The error itself; for an exception that nobody expected, the ``internal_error``."""
    return error if isinstance(error, LadingError) else internal_error(error)


def internal_error(error: BaseException) -> LadingError:
    """The error for an unexpected exception: its type and the lines of lading, innermost first.

    The exception's message is left out, since it could contain a secret.
    """
    import traceback

    frames = reversed(traceback.extract_tb(error.__traceback__))
    own = [f"{each.filename.removeprefix(_HERE)}:{each.lineno}" for each in frames if each.filename.startswith(_HERE)]
    at = f" at {', '.join(own[:_MOST_FRAMES])}" if own else ""
    return LadingError(f"{type(error).__name__}{at}", hint="this is a defect of lading: please report it")
