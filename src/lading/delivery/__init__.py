"""The steps of a delivery, between its request and its published folder."""
