"""Tests of torchserve_models/packing/artifacts/."""
