"""Supervisor of scripts/serve --detach. The argument is the file with its plan.

Messages go to the supervisor's log, the state to the state file.
"""

import signal
import sys
import time
from pathlib import Path

from torchserve_models.serving.errors import RunError
from torchserve_models.serving.run_config.run_plan import RunPlan
from torchserve_models.serving.supervisor.supervisor import Supervisor


def main() -> int:
    supervisor = Supervisor(RunPlan.from_json(Path(sys.argv[1]).read_text(encoding="utf-8")), write_log)
    info = supervisor.reporter.wrap(write_log)
    for signal_number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(signal_number, lambda *_: supervisor.on_signal())
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        supervisor.start()
        info("ready")
        supervisor.watch()
    except (RunError, OSError) as error:
        info(f"error: {error}")
        supervisor.stop("failed", str(error))
        return error.exit_code if isinstance(error, RunError) else RunError.exit_code
    except Exception as error:  # an internal error: log the traceback, and end all processes
        supervisor.stop("failed", repr(error))
        raise
    finally:
        supervisor.stop()
        supervisor.reporter.flush()
    info("ended")
    supervisor.reporter.flush()
    return 0


def write_log(message: str) -> None:
    print(f"{time.strftime('%Y-%m-%dT%H:%M:%S')} {message}", flush=True)


if __name__ == "__main__":
    sys.exit(main())
