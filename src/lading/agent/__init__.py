"""The agent: one process that keeps a set of models current, and says how that goes.

    agent      the loop: whose turn it is, and the configuration as it is now
    turn       a turn on its way, in a thread of its own
    update     one turn of one delivery: ask, deliver beside, switch, tell the server, or roll back
    policy     which version may be taken, and when; decisions only
    versions   the versions of one model on disk, and which of them is in place
    kept       the version of one model in the store, where it has no destination
    record     what is remembered of a delivery from one process to the next
    server     the model server, which is told of a new version
    status     how each delivery is; metrics and page show it
    metrics    the same as numbers, for Prometheus
    page       the same for people
    endpoint   the HTTP server for all of that, and for hints
    hints      webhooks of MLflow: reasons to ask now, and nothing more

It downloads nothing itself: that is ``deliver``.
"""
