"""The commands `manage ...`, which use TorchServe's management API."""

import json
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import asdict
from typing import Annotated, Any

import typer

from torchserve_models.cli.client_command import run_operation
from torchserve_models.cli.options import Connection, JsonOutput, parse_timeout
from torchserve_models.cli.typer_helpers import create_app, examples, expand_options
from torchserve_models.client.async_client import AsyncClient
from torchserve_models.client.model_descriptions import Model
from torchserve_models.client.results import Metrics
from torchserve_models.client.settings import Settings

app = create_app()

ModelName = Annotated[str, typer.Argument(metavar="MODEL", help="A registered model.")]
Archive = Annotated[
    str, typer.Argument(metavar="ARCHIVE", help="A file name in the model store, such as resnet-50.mar.")
]
Version = Annotated[str | None, typer.Option("--version", metavar="V", help="Version of the model.")]
NoWait = Annotated[bool, typer.Option("--no-wait", help="Do not wait until the workers run.")]
DrainTimeout = Annotated[
    float | None,
    typer.Option(
        "--drain-timeout",
        parser=parse_timeout,
        metavar="S",
        show_default="the model's responseTimeout",
        help="Seconds to wait until running requests are answered.",
    ),
]
Answer = tuple[Any, Sequence[str]]
"""The answer of a command as a JSON value, and as lines of text."""


@app.callback(
    epilog=examples(
        "manage list",
        "manage describe resnet-50 --json",
        "manage scale resnet-50 4",
        "manage register resnet-50-v2.mar",
        "manage replace resnet-50 resnet-50-v2.mar",
        "manage metrics handler_requests_total",
    )
)
def manage_command() -> None:
    """Manage the models of a running server.

    List, describe, scale, register, replace and remove models; show metrics.
    """


@app.command("list")
@expand_options
def list_models(*, as_json: JsonOutput = False, connection: Connection) -> int:
    """List the registered models."""

    async def answer(client: AsyncClient) -> Answer:
        entries = await client.list_models()
        return [asdict(entry) for entry in entries], [f"{entry.name:<24} {entry.url}" for entry in entries]

    return _run(connection, as_json, answer)


@app.command()
@expand_options
def describe(
    *,
    model: ModelName,
    version: Version = None,
    every_version: Annotated[bool, typer.Option("--all", help="Describe every version.")] = False,
    metadata: Annotated[
        bool, typer.Option("--metadata", help="Add the handler's metadata: weights, engine, device.")
    ] = False,
    as_json: JsonOutput = False,
    connection: Connection,
) -> int:
    """Describe a model: version, workers and queue."""

    async def answer(client: AsyncClient) -> Answer:
        if every_version:
            models = await client.describe_versions(model)
        else:
            models = [await client.describe(model, version, customized=metadata)]
        return [asdict(entry) for entry in models], [line for entry in models for line in model_lines(entry)]

    return _run(connection, as_json, answer)


@app.command()
@expand_options
def scale(
    *,
    model: ModelName,
    workers: Annotated[int, typer.Argument(metavar="WORKERS", help="Minimum number of workers.")],
    max_workers: Annotated[
        int | None,
        typer.Option("--max", metavar="N", show_default="WORKERS", help="Maximum number of workers."),
    ] = None,
    version: Version = None,
    no_wait: Annotated[
        bool,
        typer.Option("--no-wait", help="Send one request: neither drain nor wait until the workers run."),
    ] = False,
    drain_timeout: DrainTimeout = None,
    now: Annotated[
        bool, typer.Option("--now", help="Stop surplus workers immediately; their requests fail.")
    ] = False,
    as_json: JsonOutput = False,
    connection: Connection,
) -> int:
    """Change the number of workers of a model."""

    def change(client: AsyncClient) -> Awaitable[str]:
        return client.scale(
            model, workers, max_workers, version, not no_wait, drain_timeout=drain_timeout, force=now
        )

    return _run_change(connection, as_json, change)


@app.command()
@expand_options
def register(
    *,
    archive: Archive,
    name: Annotated[
        str | None, typer.Option(metavar="NAME", help="Model name to use instead of the name in the archive.")
    ] = None,
    workers: Annotated[
        int | None,
        typer.Option(metavar="N", help="Number of workers, if the archive's model-config.yaml has none."),
    ] = None,
    no_wait: NoWait = False,
    as_json: JsonOutput = False,
    connection: Connection,
) -> int:
    """Load an archive of the model store."""

    def change(client: AsyncClient) -> Awaitable[str]:
        return client.register(archive, model_name=name, initial_workers=workers, synchronous=not no_wait)

    return _run_change(connection, as_json, change)


@app.command()
@expand_options
def set_default(
    *,
    model: ModelName,
    version: Annotated[str, typer.Argument(metavar="VERSION", help="A registered version of the model.")],
    force: Annotated[
        bool, typer.Option("--force", help="Set the default version even if none of its workers is ready.")
    ] = False,
    as_json: JsonOutput = False,
    connection: Connection,
) -> int:
    """Choose the version that answers requests without a version."""
    return _run_change(connection, as_json, lambda client: client.set_default(model, version, force=force))


@app.command()
@expand_options
def replace(
    *,
    model: ModelName,
    archive: Archive,
    workers: Annotated[
        int | None,
        typer.Option(metavar="N", show_default="those of the old version", help="Number of workers."),
    ] = None,
    drain_timeout: DrainTimeout = None,
    as_json: JsonOutput = False,
    connection: Connection,
) -> int:
    """Replace the default version with a new version without losing a request."""

    def change(client: AsyncClient) -> Awaitable[str]:
        return client.replace_model(model, archive, workers=workers, drain_timeout=drain_timeout)

    return _run_change(connection, as_json, change)


@app.command()
@expand_options
def unregister(
    *,
    model: ModelName,
    version: Annotated[
        str | None, typer.Option(metavar="V", show_default="its only version", help="Version of the model.")
    ] = None,
    drain_timeout: DrainTimeout = None,
    now: Annotated[
        bool, typer.Option("--now", help="Remove it immediately, without answering its requests.")
    ] = False,
    as_json: JsonOutput = False,
    connection: Connection,
) -> int:
    """Remove a version of a model when its requests are answered."""

    def change(client: AsyncClient) -> Awaitable[str]:
        return client.unregister(model, version, drain_timeout=drain_timeout, force=now)

    return _run_change(connection, as_json, change)


@app.command()
@expand_options
def metrics(
    *,
    names: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="NAME", help="Metrics to print, such as handler_requests_total; all if omitted."
        ),
    ] = None,
    as_json: JsonOutput = False,
    connection: Connection,
) -> int:
    """Print counters and histograms."""

    async def answer(client: AsyncClient) -> Answer:
        samples = await client.metrics(names or [])
        return [asdict(sample) for sample in samples], metric_lines(samples)

    return _run(connection, as_json, answer)


def _run(connection: Connection, as_json: bool, answer: Callable[[AsyncClient], Awaitable[Answer]]) -> int:
    async def operation(settings: Settings) -> int:
        async with AsyncClient(
            protocol=settings.protocol,
            endpoints=settings.endpoints,
            timeout=settings.timeout,
            api_key=settings.api_key,
        ) as client:
            value, lines = await answer(client)
        print(json.dumps(value, ensure_ascii=False, indent=2) if as_json else "\n".join(lines))
        return 0

    return run_operation(connection, operation)


def _run_change(
    connection: Connection, as_json: bool, change: Callable[[AsyncClient], Awaitable[str]]
) -> int:
    async def answer(client: AsyncClient) -> Answer:
        sentence = await change(client)
        return {"status": sentence}, [sentence]

    return _run(connection, as_json, answer)


def model_lines(model: Model) -> list[str]:
    """Return the description of a model version as lines of text."""
    state = "ready" if model.ready else "not ready"
    workers = [
        f"  worker {worker.id}: {worker.status}, process {worker.pid}, {'GPU' if worker.gpu else 'CPU'}"
        for worker in model.workers
    ]
    metadata = [f"  {name}: {json.dumps(value)}" for name, value in (model.metadata or {}).items()]
    return [
        f"{model.name} {model.version}: {state}",
        f"  archive {model.url}, batches of up to {model.batch_size} within {model.max_batch_delay} ms",
        f"  workers {model.min_workers} to {model.max_workers}, queue {model.queue_waiting} waiting, "
        f"{model.queue_free} free",
        *workers,
        *metadata,
    ]


def metric_lines(metrics: Metrics) -> list[str]:
    """Return a line for each sample, sorted by name and labels because TorchServe's order is not stable."""
    lines = []
    for sample in sorted(metrics, key=lambda sample: (sample.name, *sample.labels.items())):
        labels = ", ".join(f"{name}={value}" for name, value in sample.labels.items())
        lines.append(f"{sample.value:>14g}  {sample.name}" + (f"  {{{labels}}}" if labels else ""))
    return lines
