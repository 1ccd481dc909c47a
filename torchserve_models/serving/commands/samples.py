"""Sample image and text in the run folder, and the commands that send them."""

import shlex
import shutil
from collections.abc import Sequence
from pathlib import Path

from torchserve_models.client import Endpoints
from torchserve_models.packing import PackingError, read_provenance
from torchserve_models.sample_inputs import IMAGES, REPORTS


def sample_commands(models: Sequence[str], store: Path, folder: Path, endpoints: Endpoints) -> list[str]:
    """Write the sample inputs to `folder`; return a shell command for each model that sends one of them."""
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
    """Write a sample file for each task to `folder`; return the file and curl's options by task."""
    folder.mkdir(exist_ok=True)
    photo, text = folder / "image.jpg", folder / "report.txt"
    shutil.copyfile(IMAGES["arrow"], photo)
    shutil.copyfile(REPORTS[0], text)
    plain = " -H 'Content-Type: text/plain'"
    return {"image-classification": (photo, ""), "summarization": (text, plain)}
