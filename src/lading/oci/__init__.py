"""OCI registries: whose credentials (``credentials``), and what a registry is shown of them (``authorization``)."""
