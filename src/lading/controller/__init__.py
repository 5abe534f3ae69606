"""The controller: one process that updates the services of a cluster when the names of their models move.

    controller the loop: watches, the Lease, and rollouts that are due
    cycles     one cycle of one rollout: observe, decide, keep, write, tell
    managed    a rollout with its policy and the service that it manages
    service    an InferenceService or LLMInferenceService of KServe
    pods       its pods: their pins, how they are, and what they received
    selection  which services a rollout selects, and the rollout of each
    asking     all that asks and tells others: questions, checks and records, each with an agenda
    agenda     what is due by name, and the threads that work on it
    checking   whether a version does what its policy's checks expect
    questions  the versions that names stand for now: one question for all services with the same name
    records    reports to registries: how rollouts ended, and which versions services have
    telling    Events and the log
    shown      metrics, probes and the page

``lading.rollout`` decides which pin is written, and when; this package asks, stores, writes and reports.
"""
