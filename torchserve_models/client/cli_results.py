"""What `predict` prints of each input: a JSON object in a line, or lines for people."""

import json
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from torchserve_models.client.cli_inputs import STDIN, exists
from torchserve_models.client.cli_options import explain
from torchserve_models.client.errors import TorchServeError
from torchserve_models.client.results import Label, Summary

BAR = 24
TITLE_LENGTH = 60


@dataclass(frozen=True)
class Outcome:
    """Of one input: an answer or an error. `id` is the caller's own JSON value, None if none."""

    input: str
    answer: Sequence[Label] | Sequence[Summary] = ()
    error: Exception | None = None
    id: Any = None


def show(outcome: Outcome, as_json: bool) -> None:
    """JSON goes to stdout, errors included; for people, errors go to stderr."""
    if as_json:
        print(json.dumps(_record(outcome), ensure_ascii=False), flush=True)
    elif outcome.error is not None:
        print(f"{_title(outcome.input)}: {_reason(outcome.error)}", file=sys.stderr, flush=True)
    else:
        lines = [line for item in outcome.answer for line in _lines(item)]
        print("\n".join([_title(outcome.input), *lines]), flush=True)


def _title(text: str) -> str:
    """A file's whole path, the beginning of a text."""
    if text == STDIN:
        return "standard input"
    is_short = len(text) <= TITLE_LENGTH or not any(map(str.isspace, text))
    return text if is_short or exists(text) else f"{text[: TITLE_LENGTH - 3]}..."


def _lines(item: Label | Summary) -> list[str]:
    if isinstance(item, Label):
        bar = "█" * round(BAR * min(1.0, max(0.0, item.score)))
        return [f"  {item.score:6.1%}  {bar:<{BAR}}  {item.label}"]
    note = ["  (the text was longer than the model reads; its end was left out)"] if item.truncated else []
    return [f"  {item.text}", *note]


def _record(outcome: Outcome) -> dict[str, Any]:
    record: dict[str, Any] = {"input": outcome.input} | ({} if outcome.id is None else {"id": outcome.id})
    if isinstance(outcome.error, TorchServeError):
        record["error"] = outcome.error.as_dict()
    elif outcome.error is not None:
        record["error"] = {"code": None, "type": type(outcome.error).__name__, "message": str(outcome.error)}
    elif outcome.answer and isinstance(outcome.answer[0], Label):
        record["labels"] = [asdict(label) for label in outcome.answer]
    else:
        record["summaries"] = [asdict(summary) for summary in outcome.answer]
    return record


def _reason(error: Exception) -> str:
    if isinstance(error, TorchServeError):
        return explain(error)
    return (isinstance(error, OSError) and error.strerror) or str(error)
