"""HTTP/1.1: one client, and the layers that it stands on."""
