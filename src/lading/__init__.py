"""lading brings a model, named by a URI or a registry entry, to a folder: verified, whole or not at all."""

__version__ = "0.1.0"
