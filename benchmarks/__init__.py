"""Measures the product and what a user would pick instead, on the same weights and the same JPEGs, in one run."""
