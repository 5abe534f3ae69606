"""A client of the API server of Kubernetes, over lading's own HTTP client: only the parts that a controller needs."""
