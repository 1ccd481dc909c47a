"""`scripts/predict`: sends pictures and texts from the terminal and prints labels and summaries."""

import argparse
import asyncio
import json
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from client.async_client import AsyncClient
from client.cli_options import HINT, endpoints, explain, has_no_server
from client.errors import InvalidText, ServeError
from client.results import Label, Scalar, Summary

DESCRIPTION = (
    "Send pictures and texts to a model; print labels and summaries. Exit code 1 if any input failed."
)
RESERVED = frozenset(
    ("self", "model", "image", "text", "version", "timeout", "headers")
)  # the client's own arguments
AT_ONCE = 8
BAR = 24
MAGIC = (b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n", b"GIF8", b"BM", b"II*\0", b"MM\0*")
IMAGE_SUFFIXES = frozenset(
    (".jpg", ".jpeg", ".png", ".gif", ".bmp", ".tif", ".tiff", ".webp", ".avif", ".heic", ".ico", ".ppm")
)
TEXT_SUFFIXES = frozenset((".txt", ".text", ".md"))


@dataclass(frozen=True)
class Outcome:
    """Of one input: an answer or an error."""

    input: str
    answer: Sequence[Label] | Sequence[Summary] = ()
    error: ServeError | OSError | None = None


def parse(arguments: Sequence[str], connection: argparse.ArgumentParser) -> argparse.Namespace:
    parser = argparse.ArgumentParser("scripts/predict", description=DESCRIPTION, parents=[connection])
    parser.add_argument("model", metavar="MODEL")
    parser.add_argument(
        "inputs", metavar="INPUT", nargs="+", help="a picture, a text file, a text, or - for standard input"
    )
    parser.add_argument("--version", metavar="V", help="of the model; default: its default version")
    parser.add_argument("--top-k", type=int, metavar="N", help="how many labels of a picture")
    parser.add_argument(
        "--param",
        action="append",
        default=[],
        type=parameter,
        metavar="NAME=VALUE",
        help="a parameter of the request, such as num_beams=4; may be given several times",
    )
    parser.add_argument("--json", action="store_true", help="one JSON object a line and input")
    return parser.parse_intermixed_args(arguments)


def parameter(text: str) -> tuple[str, Scalar]:
    """The value as JSON reads it where that is a number or a boolean, else the string it is."""
    name, equals, value = text.partition("=")
    if not name or not equals:
        raise argparse.ArgumentTypeError(f"{text!r} is not NAME=VALUE")
    if name in RESERVED:
        raise argparse.ArgumentTypeError(f"{name!r} is no parameter of a request")
    try:
        parsed = json.loads(value)
    except ValueError:
        return name, value
    return name, parsed if isinstance(parsed, (bool, int, float, str)) else value


async def run(options: argparse.Namespace) -> int:
    """Sends the inputs, several at once; prints in their order, each as soon as those before it are done."""
    limit = asyncio.Semaphore(AT_ONCE)
    failed, no_server = 0, False
    async with AsyncClient(
        protocol=options.protocol, endpoints=endpoints(options), timeout=options.timeout
    ) as client:
        tasks = [asyncio.create_task(send(client, options, text, limit)) for text in options.inputs]
        try:
            for task in tasks:
                outcome = await task
                failed += outcome.error is not None
                no_server |= has_no_server(outcome.error)
                show(outcome, options.json)
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
    if failed and len(options.inputs) > 1:
        print(f"{failed} of {len(options.inputs)} inputs failed", file=sys.stderr)
    if no_server:
        print(HINT, file=sys.stderr)
    return 1 if failed else 0


async def send(
    client: AsyncClient, options: argparse.Namespace, text: str, limit: asyncio.Semaphore
) -> Outcome:
    async with limit:
        try:
            payload = await asyncio.to_thread(read_input, text)
            parameters = dict(options.param)
            if options.top_k is not None:
                parameters["top_k"] = options.top_k
            if isinstance(payload, bytes):
                labels = await client.classify(options.model, payload, version=options.version, **parameters)
                return Outcome(text, answer=labels)
            summaries = await client.summarize(options.model, payload, version=options.version, **parameters)
            return Outcome(text, answer=summaries)
        except (ServeError, OSError) as error:
            return Outcome(text, error=error)


def read_input(text: str) -> bytes | str:
    """A picture's bytes, or a text. Raises OSError for a file that cannot be read, InvalidText for neither."""
    if text == "-":
        return _bytes_or_text(sys.stdin.buffer.read(), "")
    path = Path(text)
    suffix = path.suffix.lower()
    if _exists(path):
        return _bytes_or_text(path.read_bytes(), suffix)
    looks_like_a_file = suffix in IMAGE_SUFFIXES | TEXT_SUFFIXES and not any(map(str.isspace, text.strip()))
    if looks_like_a_file:
        raise FileNotFoundError(2, "No such file", text)
    return text


def _exists(path: Path) -> bool:
    """A long text is no file name, and asking for it is an error of its own."""
    try:
        return path.is_file() or path.is_dir()
    except (OSError, ValueError):
        return False


def _bytes_or_text(content: bytes, suffix: str) -> bytes | str:
    webp = content[:4] == b"RIFF" and content[8:12] == b"WEBP"
    if suffix in IMAGE_SUFFIXES or (suffix not in TEXT_SUFFIXES and (webp or content.startswith(MAGIC))):
        return content
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise InvalidText(f"neither a picture nor UTF-8 text: byte {error.start} cannot be read") from None


def show(outcome: Outcome, as_json: bool) -> None:
    if as_json:
        print(json.dumps(_record(outcome), ensure_ascii=False), flush=True)
    elif outcome.error is not None:
        print(f"{_title(outcome.input)}: {_reason(outcome.error)}", file=sys.stderr, flush=True)
    else:
        print(
            "\n".join([_title(outcome.input), *(line for item in outcome.answer for line in _lines(item))]),
            flush=True,
        )


def _title(text: str) -> str:
    """A file's whole path, the beginning of a text."""
    if text == "-":
        return "standard input"
    is_short = len(text) <= 60 or not any(map(str.isspace, text))
    return text if is_short or _exists(Path(text)) else f"{text[:57]}..."


def _lines(item: Label | Summary) -> list[str]:
    if isinstance(item, Label):
        bar = "█" * round(BAR * min(1.0, max(0.0, item.score)))
        return [f"  {item.score:6.1%}  {bar:<{BAR}}  {item.label}"]
    note = ["  (the text was longer than the model reads; its end was left out)"] if item.truncated else []
    return [f"  {item.text}", *note]


def _record(outcome: Outcome) -> dict[str, Any]:
    record: dict[str, Any] = {"input": outcome.input}
    if isinstance(outcome.error, ServeError):
        record["error"] = outcome.error.as_dict()
    elif outcome.error is not None:
        record["error"] = {"code": None, "type": type(outcome.error).__name__, "message": str(outcome.error)}
    elif outcome.answer and isinstance(outcome.answer[0], Label):
        record["labels"] = [asdict(label) for label in outcome.answer]
    else:
        record["summaries"] = [asdict(summary) for summary in outcome.answer]
    return record


def _reason(error: ServeError | OSError) -> str:
    if isinstance(error, ServeError):
        return explain(error)
    return error.strerror or str(error)
