"""The API server of Kubernetes, over lading's own HTTP client: what a controller needs of it, and no more."""
