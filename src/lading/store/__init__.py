"""The folder that the deliveries of a node share."""
