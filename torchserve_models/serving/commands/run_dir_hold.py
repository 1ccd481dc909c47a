"""Hold the run folder while archives are packed, visible to scripts/status and stoppable by scripts/stop."""

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace

from torchserve_models.serving.run_config.ports import check_free
from torchserve_models.serving.run_config.run_plan import RunPlan
from torchserve_models.serving.run_config.state import ProcessIdentity, RunState
from torchserve_models.serving.supervisor.cleanup import clean_up


@contextmanager
def hold_run_dir(plan: RunPlan, info: Callable[[str], None]) -> Iterator[None]:
    """Hold the lock of the run folder while archives are packed; the supervisor takes it afterwards.

    Problems with the run folder or the ports are thus reported before packing, which may download gigabytes.

    Raises:
        RunError: A server already runs in this folder, a port is taken, or the folder cannot be used.
    """
    run = plan.run
    run.make()
    with run.lock():
        clean_up(RunState.read(run.state), info)  # leftover processes would hold the ports
        check_free(plan.settings)
        state = RunState(
            phase="starting",
            message="packing",
            supervisor=ProcessIdentity.of(os.getpid()),
            guardian=ProcessIdentity.of_guardian(),
            frontend=None,
            endpoints=plan.endpoints,
            models=plan.models,
            store=str(plan.store),
            temporary=str(run.path / "tmp"),
            stop_seconds=plan.stop_seconds,
        )
        state.write(run.state)
        try:
            yield
        except Exception as error:
            replace(state, phase="failed", message=str(error)).write(run.state)
            raise
        except BaseException:  # Ctrl-C, or scripts/stop
            replace(state, phase="stopped", message="stopped on request").write(run.state)
            raise
