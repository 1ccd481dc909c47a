"""The command `bench`."""

import sys
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path

from benchmarks.errors import BenchmarkError
from benchmarks.instruction_sets import hold_to
from benchmarks.options import BenchOptions
from benchmarks.session import Schedule
from torchserve_models.cli.typer_helpers import create_app, examples, expand_options, run_command
from torchserve_models.exit_codes import ExitCode
from torchserve_models.files import PathLock
from torchserve_models.signals import handle_termination
from torchserve_models.tuning.errors import TuningError

IMAGE_SCHEDULE = Schedule()
QUICK_SCHEDULE = Schedule(rounds=1, warm_up=1.0, shares=(0.3, 0.7, 1.5), peer_shares=(0.5, 1.5))
TEXT_SCHEDULE = Schedule(rounds=1, open_seconds=0.0)
QUICK_TEXT_SCHEDULE = replace(TEXT_SCHEDULE, concurrency=(1, 8), seconds=2.0, max_answer_seconds=20.0)

app = create_app()


@app.command(
    epilog=examples("bench --quick", "bench --texts", "bench --url http://HOST:8080 --model resnet-50")
)
@expand_options
def bench(*, options: BenchOptions) -> int:
    """Measure ResNet-50 side by side on this machine.

    This repository over REST and gRPC, its handler without a server, and Flask, FastAPI, MLServer, LitServe and
    TorchServe's image_classifier, set up as in their documentation. With --texts, measure summaries by T5-small and
    BART-large. See docs/benchmarks.md for the method, the results, and the time that a run takes.
    """
    handle_termination()
    try:
        options.check()
        if options.isa:
            hold_to(options.isa)
        with nullcontext() if options.url else _lock(options.work):  # --url needs no files of the work folder
            _run(options)
    except (BenchmarkError, TuningError) as error:
        print(f"error: {error}", file=sys.stderr)
        return ExitCode.FAILURE
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return ExitCode.INTERRUPTED
    return ExitCode.SUCCESS


def _run(options: BenchOptions) -> None:
    from benchmarks import runs

    if options.url:
        runs.measure_url(options, options.adapt(QUICK_SCHEDULE, IMAGE_SCHEDULE))
    elif options.texts:
        runs.measure_texts(options, options.adapt(QUICK_TEXT_SCHEDULE, TEXT_SCHEDULE))
    else:
        runs.measure_images(options, options.adapt(QUICK_SCHEDULE, IMAGE_SCHEDULE))


def _lock(work: Path) -> PathLock:
    work.mkdir(parents=True, exist_ok=True)
    try:
        return PathLock(work, blocking=False)
    except BlockingIOError:
        raise BenchmarkError(f"another run uses {work}; wait until it ends, or change --work") from None


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command and return its exit code."""
    from typer.main import get_command

    return run_command(
        get_command(app), sys.argv[1:] if arguments is None else arguments, "torchserve-models bench"
    )
