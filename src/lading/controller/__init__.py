"""The controller: one process that lets the services of a cluster follow names of models.

    controller which rollout is due; watches, the Lease, and one cycle of one rollout
    service    an InferenceService or LLMInferenceService, and its pods, as KServe has them
    questions  what the names stand for now: one question for all services that follow the same
    shown      metrics, probes and the page

What may be written, and when, says ``lading.rollout``; this asks, keeps, writes and tells.
"""
