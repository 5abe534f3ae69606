"""Registries turn names into URIs: one file for each kind, and the chain that asks them."""
