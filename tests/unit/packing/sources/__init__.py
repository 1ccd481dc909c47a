"""Tests of torchserve_models/packing/sources/."""
