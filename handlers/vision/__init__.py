"""Decode images to upright RGB, and preprocess them for the network."""
