"""Images and artifacts of OCI registries.

image         the URI, the listing, reading: which files a manifest stands for
attachments   what lies beside an image: signatures
distribution  the protocol: manifests, blobs, tags and referrers of one repository
"""

from lading.sources.oci.image import OciSource

__all__ = ["OciSource"]
