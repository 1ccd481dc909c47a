"""Draws the data for the starter weights and trains them."""
