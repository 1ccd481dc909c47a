"""Inputs to try: drawn images and reports of the kind that the starter weights were trained on."""

from pathlib import Path

SEED = 7  # that of serving/commands/samples.py
IMAGES = (0, 4, 5, 10)
REPORTS = (0, 6, 1)


def images(folder: Path) -> list[tuple[str, Path]]:
    """What each shows, and a JPEG file of it in `folder`."""
    from training.images import draw_image

    found = []
    for index in IMAGES:
        label, content = draw_image(SEED, index)
        path = folder / f"{label}.jpg"
        path.write_bytes(content)
        found.append((label, path))
    return found


def reports() -> list[str]:
    from training.reports import report

    return [report(SEED, index)[0] for index in REPORTS]
