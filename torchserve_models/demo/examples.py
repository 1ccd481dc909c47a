"""Inputs to try: drawn pictures and reports of the kind that the starter weights were trained on."""

from pathlib import Path

SEED = 7  # that of serving/samples.py
PICTURES = (0, 4, 5, 10)
REPORTS = (0, 6, 1)


def pictures(folder: Path) -> list[tuple[str, Path]]:
    """What each shows, and a JPEG file of it in `folder`."""
    from training.pictures import picture

    found = []
    for index in PICTURES:
        label, content = picture(SEED, index)
        path = folder / f"{label}.jpg"
        path.write_bytes(content)
        found.append((label, path))
    return found


def reports() -> list[str]:
    from training.reports import report

    return [report(SEED, index)[0] for index in REPORTS]
