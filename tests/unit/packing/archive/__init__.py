"""Tests of torchserve_models/packing/archive/."""
