"""Text from untrusted sources, read strictly and printed safely."""
