"""Preparation of a summarizer: checks, and compilation of the decoding step for a CPU.

    python -m torchserve_models.packing.engines.summarizer \
        MODEL TARGET [--engine auto] [--settings JSON]

MODEL is a Hugging Face model folder. Prints the facts as JSON. If workers cannot load the model, prints the reason in
one line on stderr and exits with code 3.
"""

import argparse
import json
import sys
from pathlib import Path
from typing import Any

from handlers.core.errors import ConfigurationError
from handlers.engines.base import FACTS_FILE, EngineUnavailable
from torchserve_models.packing.engines import step_kernels
from torchserve_models.packing.engines.summarizer_checks import check_summarizer
from torchserve_models.packing.sources.run_conversion import REJECTED_EXIT_CODE


def prepare_summarizer(target: Path, engine: str) -> dict[str, Any]:
    """Write the files for the engine to the folder `target`.

    If the code cannot be compiled, the facts contain the reason, and workers use torch.

    Args:
        target: The folder to create.
        engine: The `handler.engine` setting of model-config.yaml.

    Returns:
        The facts, which are also written to `prepared.json` in `target`.
    """
    target.mkdir(parents=True, exist_ok=True)
    facts: dict[str, Any] = {"engine": engine}
    if engine != "torch":
        try:
            facts["step_kernels"] = step_kernels.build(target)
        except EngineUnavailable as error:
            facts["step_kernels"] = {"none": str(error)}
    (target / FACTS_FILE).write_text(json.dumps(facts, indent=2, sort_keys=True) + "\n")
    return facts


def main() -> None:
    """Run the command line. After a failure, the last line on stderr is the reason."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("model", type=Path)
    parser.add_argument("target", type=Path)
    parser.add_argument("--engine", default="auto")
    parser.add_argument(
        "--settings", type=json.loads, help="the `handler:` section of the configuration, as JSON"
    )
    arguments = parser.parse_args()
    try:
        check_summarizer(arguments.model, arguments.settings)
    except ConfigurationError as error:
        print(" ".join(str(error).split()), file=sys.stderr)
        sys.exit(REJECTED_EXIT_CODE)
    print(json.dumps(prepare_summarizer(arguments.target, arguments.engine)))


if __name__ == "__main__":
    main()
