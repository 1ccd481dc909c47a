"""Tests of packing/."""
