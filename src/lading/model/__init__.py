"""Values without I/O: URIs, digests, files, manifests, and decisions about them."""
