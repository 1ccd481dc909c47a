"""Preparation of engine files: checks, conversion, calibration and compilation.

The modules import torch and OpenVINO, so `packing/artifacts/preparation.py` runs them in a separate process.
"""
