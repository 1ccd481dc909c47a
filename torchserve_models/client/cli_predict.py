"""`scripts/predict`: sends images and texts from the terminal and prints labels and summaries."""

import argparse
import asyncio
import json
import sys
from collections.abc import AsyncIterator, Iterable, Sequence
from contextlib import aclosing
from functools import partial
from typing import Any

from torchserve_models.client.async_client import AsyncClient
from torchserve_models.client.cli_inputs import FORMATS, STDIN, Expanded, Source, expand, merge
from torchserve_models.client.cli_options import HINT, has_no_server, positive
from torchserve_models.client.cli_progress import ProgressBar
from torchserve_models.client.cli_requests import RESERVED
from torchserve_models.client.cli_results import Outcome, show
from torchserve_models.client.errors import TorchServeError
from torchserve_models.client.results import Scalar
from torchserve_models.client.settings import MAX_CONCURRENCY, Settings

DESCRIPTION = (
    "Send images and texts to a model; print labels and summaries. Exit code: 0 if all inputs succeeded, 1 if one "
    "failed."
)


def parse(arguments: Sequence[str], connection: argparse.ArgumentParser) -> argparse.Namespace:
    parser = argparse.ArgumentParser("scripts/predict", description=DESCRIPTION, parents=[connection])
    parser.add_argument("model", metavar="MODEL")
    parser.add_argument(
        "inputs",
        metavar="INPUT",
        nargs="+",
        help="an image, a text file, a folder, a pattern such as 'photos/**/*.jpg', a file of JSON Lines, a text, or "
        "- for standard input",
    )
    parser.add_argument(
        "--input-format",
        choices=FORMATS,
        default="auto",
        help="what files and standard input are; paths: the path of a file in each line; jsonl: a request in each "
        'line, such as {"inputs": "a text", "parameters": {"num_beams": 2}}; auto: by name and first bytes, an error '
        "where that leaves a doubt",
    )
    parser.add_argument("--version", metavar="V", help="of the model; default: its default version")
    parser.add_argument("--top-k", type=int, metavar="N", help="how many labels of an image")
    parser.add_argument(
        "--param",
        action="append",
        default=[],
        type=parameter,
        metavar="NAME=VALUE",
        help="a parameter of each request, such as num_beams=4; may be given several times",
    )
    parser.add_argument(
        "--json",
        action=argparse.BooleanOptionalAction,
        help="one JSON object a line and input; the default for folders, patterns and lists",
    )
    parser.add_argument(
        "--ordered",
        action=argparse.BooleanOptionalAction,
        help="print in the order of the inputs, not as answers come; the default for single files and texts",
    )
    parser.add_argument(
        "--concurrency",
        type=positive,
        default=MAX_CONCURRENCY,
        metavar="N",
        help=f"requests at the same time, fewer where the server refuses; default: {MAX_CONCURRENCY}",
    )
    options = parser.parse_intermixed_args(arguments)
    if options.inputs.count(STDIN) > 1:
        parser.error("standard input (-) can be read only once")
    return options


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


async def run(options: argparse.Namespace, settings: Settings) -> int:
    """Send the inputs, several at once, and print each result; the exit code."""
    inputs = merge([expand(argument, options.input_format) for argument in options.inputs])
    if inputs.note:
        print(inputs.note, file=sys.stderr)
    is_json = inputs.is_bulk if options.json is None else options.json
    ordered = not inputs.is_bulk if options.ordered is None else options.ordered
    done, failed, no_server = 0, 0, False
    async with AsyncClient(
        protocol=settings.protocol,
        endpoints=settings.endpoints,
        timeout=settings.timeout,
        max_concurrency=options.concurrency,
    ) as client:
        with ProgressBar(inputs.total, is_shown=inputs.is_bulk or len(options.inputs) > 1) as bar:
            ask = partial(_ask, client, options)
            async with aclosing(client.map(ask, _read_names(inputs.sources), ordered=ordered)) as results:
                async for result in results:
                    outcome = result.result()
                    done, failed = done + 1, failed + (outcome.error is not None)
                    show(outcome, is_json)
                    bar.advance(failed)
                    no_server |= has_no_server(outcome.error)
                    if no_server and done == failed:
                        break  # nothing has been answered yet: the others would fail in the same way
    return _finish(inputs, done, failed, no_server)


def _finish(inputs: Expanded, done: int, failed: int, no_server: bool) -> int:
    if not done:
        print("there are no inputs", file=sys.stderr)
    elif failed and done > 1:
        print(f"{failed} of {done} inputs failed", file=sys.stderr)
    if no_server and done == failed and inputs.total != done:
        print("no further inputs were sent", file=sys.stderr)
    if no_server:
        print(HINT, file=sys.stderr)
    return 1 if failed or not done else 0


async def _read_names(sources: Iterable[Source]) -> AsyncIterator[Source]:
    """Lists are read in a thread: a line of a pipe may come late."""
    iterator = iter(sources)
    while (source := await asyncio.to_thread(next, iterator, None)) is not None:
        yield source


async def _ask(client: AsyncClient, options: argparse.Namespace, source: Source) -> Outcome:
    id_ = None
    try:
        request = await asyncio.to_thread(source.read)
        id_ = request.id
        parameters: dict[str, Any] = dict(options.param)
        if options.top_k is not None:
            parameters["top_k"] = options.top_k
        parameters |= request.parameters
        content = request.content
        if isinstance(content, bytes):
            labels = await client.classify(options.model, content, version=options.version, **parameters)
            return Outcome(source.name, labels, id=id_)
        summaries = await client.summarize(options.model, content, version=options.version, **parameters)
        return Outcome(source.name, summaries, id=id_)
    except (TorchServeError, OSError) as error:
        return Outcome(source.name, error=error, id=id_)
