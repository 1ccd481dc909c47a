"""The command `torchserve-models tune`."""

import argparse
import signal
import sys
from collections.abc import Sequence
from pathlib import Path
from types import FrameType

from torchserve_models.tuning.errors import TuningError
from torchserve_models.tuning.sweep import tune


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command. Returns the exit code: 0 tuned, 1 failed, 2 wrong command line, 130 interrupted."""
    options = _parser().parse_args(arguments)
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, _interrupt)
    try:
        tune(
            options.name, options.source, options.inputs, options.concurrency, options.seconds, options.write
        )
    except TuningError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("interrupted; nothing was changed", file=sys.stderr)
        return 130
    return 0


def _interrupt(_number: int, _frame: FrameType | None) -> None:
    raise KeyboardInterrupt


def _concurrency(text: str) -> tuple[int, ...]:
    try:
        numbers = tuple(sorted({int(part) for part in text.split(",")}))
    except ValueError:
        numbers = ()
    if not numbers or numbers[0] < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a list of positive numbers such as 1,8,32")
    return numbers


def _seconds(text: str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        seconds = 0.0
    if not 0 < seconds <= 3600:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of seconds (more than 0, at most 3600)")
    return seconds


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="torchserve-models tune",
        description="Find the fastest batch size and number of workers of a model on this machine, and write them to "
        "models/NAME/model-config.yaml.",
        epilog="example: torchserve-models tune resnet-50 --inputs my-photos/",
    )
    parser.add_argument("name", metavar="NAME", help="a model of models/")
    parser.add_argument(
        "--from",
        dest="source",
        metavar="SOURCE",
        help="weights as of `pack --from`; default: those of `pack`",
    )
    parser.add_argument(
        "--inputs",
        type=Path,
        metavar="FOLDER",
        help="JPEG images, or text files for a summarizer; default: sample inputs",
    )
    parser.add_argument(
        "--concurrency",
        type=_concurrency,
        default=(1, 8, 32),
        metavar="1,8,32",
        help="numbers of clients; default: 1,8,32",
    )
    parser.add_argument(
        "--seconds", type=_seconds, default=4.0, metavar="S", help="of each measurement; default: 4"
    )
    parser.add_argument(
        "--no-write", dest="write", action="store_false", help="leave the configuration file unchanged"
    )
    return parser
