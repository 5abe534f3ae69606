"""Values without I/O: URIs, digests, files, manifests, and the decisions about them."""
