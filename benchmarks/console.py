"""What a run prints for a person, and what it says of itself."""

import datetime
import sys
from collections.abc import Mapping
from pathlib import Path

from torchserve_models.loadgen import LoadGenerator

GENERATOR_BUSY = 0.8  # of a core: beyond, it may be the load generator that is measured


def say(text: str) -> None:
    """What is going on, for a person, on stderr: stdout has the tables."""
    print(text, file=sys.stderr, flush=True)


def tell(folder: Path, blocks: Mapping[str, str], sentence: str) -> None:
    """The report on stdout, and where it lies."""
    for heading, text in blocks.items():
        if text:
            print(f"\n{heading}\n\n{text}")
    print(f"\n{sentence}\nWritten to {folder}")


def at_its_limit(generator: LoadGenerator) -> str:
    """A warning, said at once too; empty where the load generator had time left."""
    if generator.max_cpu < GENERATOR_BUSY:
        return ""
    warning = f"The load generator was at its limit ({generator.max_cpu:.0%} of a core): more --processes."
    say(warning)
    return f" {warning}"


def now() -> datetime.datetime:
    return datetime.datetime.now(datetime.UTC)
