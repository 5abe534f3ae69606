"""The agent: one process that keeps a set of models current and reports their state.

    loop             starts cycles when they are due
    configuration    the configuration, which is read again when its files change
    cycle            one cycle of one delivery, in a thread of its own
    reconcile        the steps of a cycle: ask, deliver, switch, tell the model server, or roll back
    find_if_changed  asks a source cheaply whether a model has changed
    version_policy   decides which version may be taken, and when
    versions         the versions of one model on disk, and which of them is current
    in_store         the version of one model that is kept in the store alone
    scrubber         hashes the store's files again, slowly
    prefetch         the deliveries that rollouts of a cluster want
    history          the record of a delivery, which the next process reads
    model_server     tells the model server about a new version
    status           the state of each delivery, for metrics and page
    metrics          the state as numbers, for Prometheus
    page             the state for people
    http_server      serves probes, metrics and page, and receives webhooks
    webhooks         verifies webhooks of MLflow: after each the agent asks at once

It downloads nothing itself: that is ``deliver``.
"""
