"""Print the result of each input as JSON or as text."""

import json
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from torchserve_models.cli.prediction.input_reader import STDIN, exists
from torchserve_models.client.error_messages import explain
from torchserve_models.client.errors import TorchServeError
from torchserve_models.client.results import Label, Summary

BAR_LENGTH = 24
MAX_TITLE_LENGTH = 60


@dataclass(frozen=True)
class PredictResult:
    """The result of one input: an answer or an error.

    Attributes:
        input: Name of the input.
        answer: Labels of an image or summaries of texts; empty if the request failed.
        error: Error of the request; None if it succeeded.
        id: JSON value with which the caller identified the request; None if not set.
    """

    input: str
    answer: Sequence[Label] | Sequence[Summary] = ()
    error: Exception | None = None
    id: Any = None


def print_result(result: PredictResult, as_json: bool) -> None:
    """Print a result. JSON goes to stdout, also for an error; text of an error goes to stderr."""
    if as_json:
        print(json.dumps(_record(result), ensure_ascii=False), flush=True)
    elif result.error is not None:
        print(f"{_title(result.input)}: {_reason(result.error)}", file=sys.stderr, flush=True)
    else:
        lines = [line for item in result.answer for line in _item_lines(item)]
        print("\n".join([_title(result.input), *lines]), flush=True)


def _title(text: str) -> str:
    """Return the path of a file, or the first characters of a text."""
    if text == STDIN:
        return "standard input"
    is_short = len(text) <= MAX_TITLE_LENGTH or not any(map(str.isspace, text))
    return text if is_short or exists(text) else f"{text[: MAX_TITLE_LENGTH - 3]}..."


def _item_lines(item: Label | Summary) -> list[str]:
    if isinstance(item, Label):
        bar = "█" * round(BAR_LENGTH * min(1.0, max(0.0, item.score)))
        return [f"  {item.score:6.1%}  {bar:<{BAR_LENGTH}}  {item.label}"]
    note = ["  (the text exceeds the input length of the model and was truncated)"] if item.truncated else []
    return [f"  {item.text}", *note]


def _record(result: PredictResult) -> dict[str, Any]:
    """Return the result as a JSON object."""
    record: dict[str, Any] = {"input": result.input} | ({} if result.id is None else {"id": result.id})
    if isinstance(result.error, TorchServeError):
        record["error"] = result.error.as_dict()
    elif result.error is not None:
        record["error"] = {"code": None, "type": type(result.error).__name__, "message": str(result.error)}
    elif result.answer and isinstance(result.answer[0], Label):
        record["labels"] = [asdict(label) for label in result.answer]
    else:
        record["summaries"] = [asdict(summary) for summary in result.answer]
    return record


def _reason(error: Exception) -> str:
    """Return the message of an error as one line."""
    if isinstance(error, TorchServeError):
        return explain(error)
    return (isinstance(error, OSError) and error.strerror) or str(error)
