"""Who signed a model, and what: signatures by OpenSSF Model Signing (OMS), read and verified.  No I/O, and no policy."""
