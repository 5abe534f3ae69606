"""Rollouts: which version a service in a cluster may have, and when.  Decisions only, without I/O and without a clock.

schedule   windows of time in which versions may change
state      the state of a rollout, which the next cycle reads
policy     the settings of a rollout, by its owner
verdict    the checks of a rollout, and what their answers mean
health     whether the pods of a service work with a pin
decide     the next state, and the pin to write
news       what there is to tell of it
record     the report to the registry of the model
together   the state of many services as one
on_nodes   what nodes keep in their stores
in_spec    the policy in the ModelRollout's spec
in_status  the state in its status
conditions a state as conditions of Kubernetes
"""
