"""A folder for PYTHONPATH whose `torch` replaces PyTorch in the workers of toy models."""

from pathlib import Path

PATH = Path(__file__).parent
