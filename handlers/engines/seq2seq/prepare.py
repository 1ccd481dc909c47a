"""Prepares a summarizer at packing: checks the model, and compiles attention for workers with bf16 on a CPU.

    python -m handlers.engines.seq2seq.prepare MODEL TARGET [--engine auto] [--precision auto] [--settings JSON]

Prints what it did as JSON; where the model's files are to blame, one line on stderr and exit code 3.
"""

import argparse
import json
import sys
from pathlib import Path
from typing import Any

from handlers.core.errors import ConfigurationError
from handlers.engines.base import FACTS, REFUSED, EngineUnavailable
from handlers.engines.seq2seq.check import check_summarizer
from handlers.engines.seq2seq.step_attention import build


def prepare_summarizer(target: Path, engine: str, precision: str) -> dict[str, Any]:
    """Fill the folder `target` for engine and precision of the configuration; gives the facts, as prepared.json has.

    Where the code cannot be compiled, the facts say why, and workers leave it to torch.
    """
    target.mkdir(parents=True, exist_ok=True)
    facts: dict[str, Any] = {"engine": engine}
    if engine != "torch" and precision != "fp32":
        try:
            facts["step_attention"] = build(target)
        except EngineUnavailable as error:
            facts["step_attention"] = {"none": str(error)}
    (target / FACTS).write_text(json.dumps(facts, indent=2, sort_keys=True) + "\n")
    return facts


def main() -> None:
    """The command line, which is that of handlers.engines.prepare."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("model", type=Path)
    parser.add_argument("target", type=Path)
    parser.add_argument("--engine", default="auto")
    parser.add_argument("--precision", default="auto")
    parser.add_argument(
        "--settings", type=json.loads, help="the `handler:` section of the configuration, as JSON"
    )
    arguments = parser.parse_args()
    try:
        check_summarizer(arguments.model, arguments.settings)
    except ConfigurationError as error:
        print(" ".join(str(error).split()), file=sys.stderr)
        sys.exit(REFUSED)
    print(json.dumps(prepare_summarizer(arguments.target, arguments.engine, arguments.precision)))


if __name__ == "__main__":
    main()
