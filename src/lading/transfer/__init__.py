"""Moving bytes: the scheduler (``scheduler``), files that are being received, the journal, the number of workers."""
