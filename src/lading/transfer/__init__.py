"""Moving bytes: the scheduler (``scheduler``), files on their way in (``landing``), the journal, the governor."""
