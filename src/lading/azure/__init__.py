"""Microsoft Azure's way to prove who asks: credentials and request signatures."""
