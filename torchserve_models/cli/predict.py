"""The command `predict`, which sends images and texts to a model and prints labels and summaries."""

import asyncio
import json
import sys
from collections.abc import AsyncIterator, Iterable
from contextlib import aclosing
from dataclasses import dataclass
from functools import partial
from typing import Annotated, Any, NamedTuple

import typer

from torchserve_models.cli.client_command import run_operation
from torchserve_models.cli.options import Connection, parse_positive
from torchserve_models.cli.prediction.input_reader import STDIN, Format
from torchserve_models.cli.prediction.inputs import (
    LazyRequest,
    RequestList,
    expand_argument,
    merge_requests,
)
from torchserve_models.cli.prediction.progress import ProgressBar
from torchserve_models.cli.prediction.requests import RESERVED
from torchserve_models.cli.prediction.results import PredictResult, print_result
from torchserve_models.cli.typer_helpers import create_app, examples, expand_options
from torchserve_models.client.async_client import AsyncClient
from torchserve_models.client.error_messages import START_HINT, is_server_missing
from torchserve_models.client.errors import TorchServeError
from torchserve_models.client.results import Scalar
from torchserve_models.client.settings import MAX_CONCURRENCY, Settings
from torchserve_models.exit_codes import ExitCode

app = create_app()


class Parameter(NamedTuple):
    """A parameter of a request."""

    name: str
    value: Scalar


def parse_parameter(text: str) -> Parameter:
    """Parse NAME=VALUE. A value that is a JSON number or boolean is converted; any other value is a string.

    Raises:
        ValueError: The text is not NAME=VALUE, or the name is an argument of the client's methods.
    """
    name, equals, value = text.partition("=")
    if not name or not equals:
        raise ValueError(f"{text!r} is not of the form NAME=VALUE, such as num_beams=4")
    if name in RESERVED:
        raise ValueError(f"{name!r} cannot be a parameter of a request")
    try:
        parsed = json.loads(value)
    except ValueError:
        return Parameter(name, value)
    return Parameter(name, parsed if isinstance(parsed, (bool, int, float, str)) else value)


@dataclass(frozen=True, kw_only=True)
class PredictOptions:
    """Options of `predict`, without those of the connection."""

    model: Annotated[str, typer.Argument(metavar="MODEL", help="A registered model.")]
    inputs: Annotated[
        list[str],
        typer.Argument(
            metavar="INPUT",
            help="An image, a text file, a folder, a pattern such as 'photos/**/*.jpg', a file of JSON Lines, a "
            "text, or - for standard input.",
        ),
    ]
    input_format: Annotated[
        Format,
        typer.Option(
            help="Format of files and standard input. paths: the path of a file in each line. jsonl: a request in "
            'each line, such as {"inputs": "a text", "parameters": {"num_beams": 2}}. auto: by name and first bytes; '
            "an ambiguous input is an error.",
        ),
    ] = "auto"
    version: Annotated[
        str | None, typer.Option(metavar="V", help="Version of the model; its default version if omitted.")
    ] = None
    top_k: Annotated[int | None, typer.Option(metavar="N", help="Number of labels for an image.")] = None
    param: Annotated[
        list[Parameter] | None,
        typer.Option(
            parser=parse_parameter,
            metavar="NAME=VALUE",
            help="A parameter of each request, such as num_beams=4. Can be repeated.",
        ),
    ] = None
    json: Annotated[
        bool | None,
        typer.Option(
            "--json/--no-json",
            help="Print a JSON object in one line for each input; the default for folders, patterns and lists.",
        ),
    ] = None
    ordered: Annotated[
        bool | None,
        typer.Option(
            "--ordered/--no-ordered",
            help="Print in the order of the inputs instead of the order of the answers; the default for single files "
            "and texts.",
        ),
    ] = None
    concurrency: Annotated[
        int,
        typer.Option(
            parser=parse_positive,
            metavar="N",
            help="Requests in flight at the same time; fewer while the server is overloaded.",
        ),
    ] = MAX_CONCURRENCY

    def __post_init__(self) -> None:
        if self.inputs.count(STDIN) > 1:
            raise ValueError("standard input (-) can be given only once")


@app.command(
    "predict",
    epilog=examples(
        "predict resnet-50 photo.jpg --top-k 3",
        "predict resnet-50 'photos/**/*.jpg' > labels.jsonl",
        "predict t5-small report.txt --param num_beams=4",
        "predict t5-small - --url https://models.example --protocol open-inference < report.txt",
    ),
)
@expand_options
def predict_command(*, options: PredictOptions, connection: Connection) -> int:
    """Send images and texts to a model; print labels and summaries.

    Exit code 0 if all inputs succeeded, 1 if one failed.
    """
    return run_operation(connection, partial(_predict, options))


async def _predict(options: PredictOptions, settings: Settings) -> int:
    """Send the inputs concurrently, print each result, and return the exit code."""
    inputs = merge_requests([expand_argument(argument, options.input_format) for argument in options.inputs])
    if inputs.note:
        print(inputs.note, file=sys.stderr)
    is_json = inputs.is_bulk if options.json is None else options.json
    ordered = not inputs.is_bulk if options.ordered is None else options.ordered
    done, failed, is_missing = 0, 0, False
    async with AsyncClient(
        protocol=settings.protocol,
        endpoints=settings.endpoints,
        timeout=settings.timeout,
        api_key=settings.api_key,
        max_concurrency=options.concurrency,
    ) as client:
        with ProgressBar(inputs.total, is_shown=inputs.is_bulk or len(options.inputs) > 1) as bar:
            send = partial(_send, client, options)
            async with aclosing(client.map(send, _iterate(inputs.requests), ordered=ordered)) as results:
                async for map_result in results:
                    result = map_result.result()
                    done, failed = done + 1, failed + (result.error is not None)
                    print_result(result, is_json)
                    bar.advance(failed)
                    is_missing |= is_server_missing(result.error)
                    if is_missing and done == failed:
                        break  # no request has been answered, so the next ones would fail as well
    return _finish(inputs, done, failed, is_missing)


def _finish(inputs: RequestList, done: int, failed: int, is_missing: bool) -> int:
    """Print the number of failed inputs and hints; return the exit code."""
    if not done:
        print("no input found: the lists, folders or patterns contain no image or text", file=sys.stderr)
    elif failed and done > 1:
        print(f"{failed} of {done} inputs failed", file=sys.stderr)
    if is_missing and done == failed and inputs.total != done:
        print("no further inputs were sent", file=sys.stderr)
    if is_missing:
        print(START_HINT, file=sys.stderr)
    return ExitCode.FAILURE if failed or not done else ExitCode.SUCCESS


async def _iterate(requests: Iterable[LazyRequest]) -> AsyncIterator[LazyRequest]:
    """Yield the requests. A thread iterates over them, because the next line of a pipe can take long to arrive."""
    iterator = iter(requests)
    while (request := await asyncio.to_thread(next, iterator, None)) is not None:
        yield request


async def _send(client: AsyncClient, options: PredictOptions, source: LazyRequest) -> PredictResult:
    """Read and send one request; return its answer, or the error of the request."""
    request_id = None
    try:
        request = await asyncio.to_thread(source.read)
        request_id = request.id
        parameters: dict[str, Any] = dict(options.param or [])
        if options.top_k is not None:
            parameters["top_k"] = options.top_k
        parameters |= request.parameters
        content = request.content
        if isinstance(content, bytes):
            labels = await client.classify(options.model, content, version=options.version, **parameters)
            return PredictResult(source.name, labels, id=request_id)
        summaries = await client.summarize(options.model, content, version=options.version, **parameters)
        return PredictResult(source.name, summaries, id=request_id)
    except (TorchServeError, OSError) as error:
        return PredictResult(source.name, error=error, id=request_id)
