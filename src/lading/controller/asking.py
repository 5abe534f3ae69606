"""All that asks and tells others for the controller, in threads of its own."""

from collections.abc import Callable
from typing import NamedTuple

from lading.controller.agenda import Agenda
from lading.controller.checking import Checks
from lading.controller.questions import Questions
from lading.controller.records import Records
from lading.retry import Clock
from lading.settings.settings import Settings

# Several, so that a registry or a pod that hangs does not delay the others.
_THREADS = {"questions": 4, "checks": 4, "records": 1}


class Asking(NamedTuple):
    """Questions, checks and records."""

    questions: Questions
    checks: Checks
    records: Records

    @classmethod
    def of(cls, load: Callable[[], Settings], clock: Clock, answered: Callable[[], None]) -> "Asking":
        """Make all three: ``load`` reads the settings for each question, ``answered`` is called after a new answer."""
        return cls(
            Questions(load, clock.now, answered), Checks(load, clock, answered), Records(load, clock.now, answered)
        )

    def agendas(self) -> dict[str, Agenda]:
        """The agendas by what they are for."""
        return {"questions": self.questions.agenda, "checks": self.checks.agenda, "records": self.records.agenda}

    def threads(self) -> dict[str, Callable[[], None]]:
        """Functions by name, each of which must run in a thread of its own, for ever."""
        agendas = self.agendas().items()
        return {f"{what}-{number}": agenda.serve for what, agenda in agendas for number in range(_THREADS[what])}
