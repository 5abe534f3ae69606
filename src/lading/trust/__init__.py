"""Signatures of models by OpenSSF Model Signing (OMS): reading and verifying them.  No I/O, and no policy."""
