"""Run the supervisor in the foreground: signals, the ready message and copies of the logs."""

import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from torchserve_models.serving.commands import samples
from torchserve_models.serving.commands.progress import Progress
from torchserve_models.serving.lifecycle import frontend_logs
from torchserve_models.serving.run_config.run_dir import RunDir
from torchserve_models.serving.run_config.run_plan import RunPlan
from torchserve_models.serving.run_config.state import RunState
from torchserve_models.serving.supervisor.supervisor import Supervisor
from torchserve_models.signals import handle_termination


def run_supervisor(supervisor: Supervisor, progress: Progress, verbose: bool) -> None:
    """Run until Ctrl-C or SIGTERM; a second signal stops without waiting for running requests."""
    info = supervisor.reporter.wrap(progress.info)
    handle_termination(supervisor.on_signal)
    with copy_logs(supervisor.plan.run, verbose):
        try:
            with progress:
                supervisor.start()
            with suppress(OSError, ValueError):  # stdout is closed, which must not end the server
                print_ready(supervisor.plan, progress, "Ctrl-C ends it.")
            supervisor.watch()
            info("stopping")
        except Exception as error:
            supervisor.stop("failed", str(error))
            raise
        finally:
            supervisor.stop()


def print_ready(run_plan: RunPlan, progress: Progress, how_to_stop: str) -> None:
    """Print that the server has started, why it may not be ready, and a command to try for each model."""
    state = RunState.read(run_plan.run.state)
    commands = samples.sample_commands(
        state.models if state else run_plan.models, run_plan.store, run_plan.run.samples, run_plan.endpoints
    )
    if state is not None and state.phase == "not ready":
        print(f"Started in {progress.seconds:.0f} s, but not ready: {state.message}", flush=True)
        started = how_to_stop
    else:
        started = f"Ready in {progress.seconds:.0f} s. {how_to_stop}"
    # Custom handlers have no command to try.
    print("\n".join([f"{started} Try it:", *commands] if commands else [started]), flush=True)


@contextmanager
def copy_logs(run: RunDir, enabled: bool) -> Iterator[None]:
    """Copy the front-end and worker logs to stderr if `enabled` (--verbose)."""
    finished = threading.Event()
    tails = [frontend_logs.LogTail(path) for path in (run.server_log, run.workers_log)]

    def copy() -> None:
        while not finished.wait(0.3):
            for tail in tails:
                for line in tail.lines():
                    with suppress(OSError, ValueError):
                        print(line, file=sys.stderr, flush=True)

    thread = threading.Thread(target=copy, daemon=True)
    if enabled:
        thread.start()
    try:
        yield
    finally:
        finished.set()
