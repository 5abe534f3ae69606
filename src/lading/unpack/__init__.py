"""Unpacking archives into a tree of files, while they are received."""
