"""Rollouts: which version a service in a cluster may have, and when.  Decisions only, without I/O and without a clock.

schedule   when a window is open
state      what is remembered of a rollout from one cycle to the next
policy     what its owner asks for
health     how the pods of a service are with a pin
decide     the next state, and the pin to write
resource   policy and state as the ModelRollout has them
conditions a state as Kubernetes' tools read it
"""
