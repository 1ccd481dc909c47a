"""Engines, which execute networks: a package for each kind of model, and the parts that both use."""
