"""Calls of Linux that the standard library does not have, or does not have in this form."""
