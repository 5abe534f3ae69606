"""File formats of models, judged by content: whether a file is what it says, and whether loading it runs code."""
