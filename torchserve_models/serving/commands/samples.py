"""Input to try a server with: a drawn image and a report in the run folder, and the commands that send them."""

import shlex
from collections.abc import Sequence
from pathlib import Path

from torchserve_models.client import Endpoints
from torchserve_models.packing import PackingError, read_provenance


def commands(models: Sequence[str], store: Path, folder: Path, endpoints: Endpoints) -> list[str]:
    """A command for each model, to be pasted as it is; their input is written to `folder`."""
    tasks = {name: task for name in models if (task := _task(store / f"{name}.mar"))}
    files = write(folder)
    lines = []
    for name, task in tasks.items():
        file, options = files.get(task, (None, ""))
        if file is not None:
            url = f"{endpoints.inference}/predictions/{name}"
            lines.append(f"curl -X POST{options} -T {shlex.quote(str(file))} {url}")
    return lines


def _task(archive: Path) -> str | None:
    try:
        return read_provenance(archive).task
    except PackingError:
        return None


def write(folder: Path) -> dict[str, tuple[Path, str]]:
    """Makes `folder` with a file for each task, drawn like the starters' training data; and curl's options for it."""
    from training.images import draw_image
    from training.reports import report

    folder.mkdir(exist_ok=True)
    photo, text = folder / "image.jpg", folder / "report.txt"
    photo.write_bytes(draw_image(7, 0)[1])
    text.write_text(report(7, 0)[0] + "\n", "utf-8")
    plain = " -H 'Content-Type: text/plain'"
    return {"image-classification": (photo, ""), "summarization": (text, plain)}
