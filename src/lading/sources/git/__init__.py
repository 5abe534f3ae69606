"""A git repository over HTTP, one commit of it: its files, and the Git LFS objects that they stand for.

repository  the URI, the listing, reading
protocol    git over HTTP: what a ref stands for, and a pack of objects
pack        objects out of a pack, in bounded memory
objects     a commit's files, links followed
lfs         large files, which live beside the repository
"""

from lading.sources.git.repository import GitSource

__all__ = ["GitSource"]
