"""Amazon Web Services' way to prove who asks: credentials and request signatures."""
