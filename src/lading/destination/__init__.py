"""The folder that a server reads: how it is owned, written, published and checked."""
