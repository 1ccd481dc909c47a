"""Where the files of a checkout are."""

from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
"""The directory that holds `handlers/`, `models/`, `deploy/` and `config.properties`."""
