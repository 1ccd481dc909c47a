"""Image classification: the selection of an engine, and one module for each engine."""
