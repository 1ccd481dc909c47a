"""Hold the run folder while archives are packed, visible to scripts/status and stoppable by scripts/stop."""

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace

from torchserve_models.serving.run_config.ports import check_free
from torchserve_models.serving.run_config.run_plan import Plan
from torchserve_models.serving.run_config.state import Identity, State
from torchserve_models.serving.supervisor.cleanup import clean_up


@contextmanager
def hold_run_dir(plan: Plan, info: Callable[[str], None]) -> Iterator[None]:
    """Hold the lock until the supervisor takes it. Raises RunError if nothing can be started.

    All of that comes before anything is packed, which can mean a gigabyte from the hub.
    """
    run = plan.run
    run.make()
    with run.lock():
        clean_up(State.read(run.state), info)  # it would hold the ports
        check_free(plan.settings)
        state = State(
            phase="starting",
            message="packing",
            supervisor=Identity.of(os.getpid()),
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
            replace(state, phase="stopped", message="ended as asked").write(run.state)
            raise
