"""The models that lie in the bucket of every test: a server that lists it keeps its listing for minutes."""

from fakes.trees import content

IRIS = {"weights.json": b"[1.0, 2.0, 3.0, 4.0]", "data/a.bin": content(300_000)}
# One file, large.bin.
LARGE_BYTES = 256 << 20
LAW = {"adapter.bin": content(70_000, seed=1)}
