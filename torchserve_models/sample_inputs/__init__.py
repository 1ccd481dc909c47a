"""Sample images and reports, drawn by `training` from seed 7, as the data of the starter weights was."""

from pathlib import Path

_FOLDER = Path(__file__).parent

IMAGES = {label: _FOLDER / f"{label}.jpg" for label in ("arrow", "fish", "heart", "star")}
"""JPEG files by label."""

REPORTS = tuple(_FOLDER / f"report-{number}.txt" for number in (1, 2, 3))
"""Text files, each with a report to summarize and a final line break."""
