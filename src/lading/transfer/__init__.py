"""Moving bytes: the scheduler (``scheduler``), files on their way in (``staged``), the journal, the governor."""
