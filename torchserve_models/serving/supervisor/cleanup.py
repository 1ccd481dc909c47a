"""Remove processes and files left by a killed supervisor, and unpacked archives that TorchServe does not remove."""

import shutil
import time
from collections.abc import Callable, Collection
from contextlib import suppress
from pathlib import Path

from torchserve_models.serving.archives.manifests import folder_version
from torchserve_models.serving.run_config.run_plan import SHUTDOWN_S
from torchserve_models.serving.run_config.state import RunState
from torchserve_models.serving.supervisor import frontend_process
from torchserve_models.serving.system import process_state

MIN_AGE_S = 600.0
"""Minimum age of a folder that is removed; a younger folder may belong to a registration in progress."""


def clean_up(state: RunState | None, info: Callable[[str], None], timeout_s: float = SHUTDOWN_S) -> None:
    """Terminate processes left by a killed supervisor. The caller must hold the run folder's lock."""
    if state is None:
        return
    temporary = Path(state.temporary)
    if state.frontend is not None and frontend_process.frontend_processes(state.frontend, temporary):
        info("ending the processes of a run whose supervisor was killed")
        frontend_process.end(state.frontend, temporary, timeout_s)
    frontend_process.remove(temporary)


def remove_unused_models(
    temporary: Path, versions: Collection[str], min_age: float = MIN_AGE_S
) -> list[Path]:
    """Remove unpacked archives in `temporary`/models whose version is not in `versions`; return the removed paths."""
    removed = []
    now = time.time()
    with suppress(OSError):
        for folder in (temporary / "models").iterdir():
            with suppress(OSError):
                if now - folder.stat().st_mtime > min_age and folder_version(folder) not in versions:
                    shutil.rmtree(folder, ignore_errors=True)
                    removed.append(folder)
    return removed


def remove_stale_activity(folder: Path) -> None:
    """Remove the activity files of ended workers, before their process ids are reused."""
    with suppress(OSError):
        for path in folder.iterdir():
            if path.name.isdecimal() and not process_state.is_running(int(path.name)):
                path.unlink(missing_ok=True)
