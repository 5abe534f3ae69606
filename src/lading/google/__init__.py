"""Google Cloud: who a request is from."""
