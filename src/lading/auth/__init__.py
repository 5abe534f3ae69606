"""Credentials of each provider, found and renewed, and how a request carries them."""
