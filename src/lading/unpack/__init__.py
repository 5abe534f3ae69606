"""Archives become a tree of files, while they land."""
