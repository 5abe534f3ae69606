"""Files that cannot be fetched while others can: what is said of them, and when it is no use to go on."""

from lading.errors import IntegrityError, LadingError, NotAllowed, NotFound
from lading.text.printable import wrong_paths
from lading.transfer.job import Job

# What an origin says of one of its files; all other errors are about the whole of it, or about this machine.
OF_ONE_FILE = (IntegrityError, NotFound, NotAllowed)
_KINDS = {IntegrityError: "damaged", NotFound: "missing", NotAllowed: "not allowed"}
# A damaged file is read twice: of a model that lacks so many, the rest is not worth the time.
_MOST = 10
# So many, and not one file is whole: it is not the files that are wrong.
_MOST_AT_FIRST = 3


class Failures:
    """The error of each file that failed.  Call ``add`` from one thread at a time."""

    def __init__(self) -> None:
        self._errors: dict[tuple[Job, str], LadingError] = {}
        # Files that were whole when one was not allowed the last time.
        self._whole_files = 0

    def __contains__(self, file: tuple[Job, str]) -> bool:
        return file in self._errors

    def __bool__(self) -> bool:
        return bool(self._errors)

    def add(self, job: Job, path: str, error: LadingError, whole_files: int) -> bool:
        """Note the file; whether the others, of which ``whole_files`` are whole by now, are worth going on with."""
        self._errors[job, path] = error
        if isinstance(error, NotAllowed):
            # Two refusals, and not one file between them: it is who asks.
            before, self._whole_files = self._whole_files, whole_files
            if whole_files == before:
                return False
        return len(self._errors) < (_MOST if whole_files else _MOST_AT_FIRST)

    def error(self) -> LadingError:
        """One error that names all files: of the kind, and with the message, of the worst."""
        if len(self._errors) == 1:
            return next(iter(self._errors.values()))
        several = len({job for job, _ in self._errors}) > 1
        by_name = {
            (_kind(error), f"{job.listed.resolved}: {path}" if several else path): error
            for (job, path), error in self._errors.items()
        }
        names = sorted(by_name)
        worst = max((by_name[name] for name in names), key=lambda error: error.exit_code)
        return worst.rephrased(message=f"{wrong_paths(names)} ({worst.message})")


def _kind(error: LadingError) -> str:
    return next(word for kind, word in _KINDS.items() if isinstance(error, kind))
