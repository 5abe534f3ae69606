"""The controller: one process that updates the services of a cluster when the names of their models move.

    controller the loop: watches, the Lease, rollouts that are due, and one cycle of one rollout
    service    an InferenceService or LLMInferenceService of KServe, and its pods
    selection  which services a rollout selects, and the rollout of each
    agenda     what is due by name, and the threads that work on it
    checking   whether a version does what its policy's checks expect
    questions  the versions that names stand for now: one question for all services with the same name
    records    reports to registries: how rollouts ended, and which versions services have
    shown      metrics, probes and the page

``lading.rollout`` decides which pin is written, and when; this package asks, stores, writes and reports.
"""
