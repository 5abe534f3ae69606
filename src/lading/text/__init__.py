"""Text of strangers, read strictly and printed safely."""
