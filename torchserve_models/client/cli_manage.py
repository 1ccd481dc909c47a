"""`scripts/manage`: TorchServe's management from the terminal."""

import argparse
import json
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from torchserve_models.client.async_client import AsyncClient
from torchserve_models.client.cli_options import seconds
from torchserve_models.client.results import Metrics, Model
from torchserve_models.client.settings import Settings

DESCRIPTION = "List, describe, scale, register, replace and remove models; show metrics."


def parse(arguments: Sequence[str], connection: argparse.ArgumentParser) -> argparse.Namespace:
    common = argparse.ArgumentParser(add_help=False, parents=[connection])
    common.add_argument("--json", action="store_true", help="print JSON")
    named = argparse.ArgumentParser(add_help=False, parents=[common])
    named.add_argument("model", metavar="MODEL")

    parser = argparse.ArgumentParser("scripts/manage", description=DESCRIPTION)
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    commands.add_parser("list", parents=[common], help="the registered models")
    describe = commands.add_parser("describe", parents=[named], help="a model's version, workers and queue")
    describe.add_argument("--version", metavar="V")
    describe.add_argument("--all", action="store_true", help="every version")
    describe.add_argument(
        "--metadata", action="store_true", help="the handler's own: weights, engine, device"
    )
    scale = commands.add_parser("scale", parents=[named], help="change the number of workers")
    scale.add_argument("min_workers", type=int, metavar="WORKERS")
    scale.add_argument("--max", type=int, metavar="N", dest="max_workers", help="default: WORKERS")
    scale.add_argument("--version", metavar="V")
    scale.add_argument(
        "--no-wait", action="store_true", help="one call: neither drain nor wait until the workers run"
    )
    _add_drain(scale, "end surplus workers at once, with the requests that they have")
    register = commands.add_parser("register", parents=[common], help="load an archive of the model store")
    register.add_argument("archive", metavar="ARCHIVE", help="its file name, such as resnet-50.mar")
    register.add_argument("--name", help="another name than the archive's own")
    register.add_argument("--workers", type=int, metavar="N", help="where its model-config.yaml names none")
    register.add_argument("--no-wait", action="store_true", help="do not wait until the workers run")
    default = commands.add_parser("set-default", parents=[named], help="choose the version that answers")
    default.add_argument("version", metavar="VERSION")
    default.add_argument("--force", action="store_true", help="also if no worker of it is ready")
    replace = commands.add_parser(
        "replace",
        parents=[named],
        help="put a new version in the place of the default one, losing no request",
    )
    replace.add_argument("archive", metavar="ARCHIVE", help="of the new version, in the model store")
    replace.add_argument("--workers", type=int, metavar="N", help="default: as many as the old version has")
    _add_drain(replace)
    unregister = commands.add_parser(
        "unregister", parents=[named], help="remove a version of a model when its requests are answered"
    )
    unregister.add_argument("--version", metavar="V", help="default: its only version")
    _add_drain(unregister, "remove it at once; requests that it has are never answered")
    metrics = commands.add_parser("metrics", parents=[common], help="the counters and histograms")
    metrics.add_argument("names", nargs="*", metavar="NAME", help="only these: handler_requests_total, ...")
    return parser.parse_args(arguments)


def _add_drain(parser: argparse.ArgumentParser, now: str | None = None) -> None:
    parser.add_argument(
        "--drain-timeout",
        type=seconds,
        metavar="S",
        help="how long to wait until its requests are answered; default: the model's responseTimeout",
    )
    if now:
        parser.add_argument("--now", action="store_true", help=now)


async def run(options: argparse.Namespace, settings: Settings) -> int:
    async with AsyncClient(
        protocol=settings.protocol, endpoints=settings.endpoints, timeout=settings.timeout
    ) as client:
        value, lines = await answer(client, options)
    print(json.dumps(value, ensure_ascii=False, indent=2) if options.json else "\n".join(lines))
    return 0


async def answer(client: AsyncClient, options: argparse.Namespace) -> tuple[Any, Sequence[str]]:
    """The answer for programs and for people."""
    match options.command:
        case "list":
            entries = await client.list_models()
            return [asdict(entry) for entry in entries], [
                f"{entry.name:<24} {entry.url}" for entry in entries
            ]
        case "describe":
            models = await _describe(client, options)
            return [asdict(model) for model in models], [
                line for model in models for line in model_lines(model)
            ]
        case "metrics":
            metrics = await client.metrics(options.names)
            return [asdict(sample) for sample in metrics], metric_lines(metrics)
        case _:
            sentence = await _change(client, options)
            return {"status": sentence}, [sentence]


async def _describe(client: AsyncClient, options: argparse.Namespace) -> list[Model]:
    if options.all:
        return await client.describe_versions(options.model)
    return [await client.describe(options.model, options.version, customized=options.metadata)]


async def _change(client: AsyncClient, options: argparse.Namespace) -> str:
    match options.command:
        case "scale":
            return await client.scale(
                options.model,
                options.min_workers,
                options.max_workers,
                options.version,
                not options.no_wait,
                drain_timeout=options.drain_timeout,
                force=options.now,
            )
        case "register":
            return await client.register(
                options.archive,
                model_name=options.name,
                initial_workers=options.workers,
                synchronous=not options.no_wait,
            )
        case "set-default":
            return await client.set_default(options.model, options.version, force=options.force)
        case "replace":
            return await client.replace_model(
                options.model, options.archive, workers=options.workers, drain_timeout=options.drain_timeout
            )
        case _:
            return await client.unregister(
                options.model, options.version, drain_timeout=options.drain_timeout, force=options.now
            )


def model_lines(model: Model) -> list[str]:
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
    """By name and labels; TorchServe's own order changes from one start to the next."""
    lines = []
    for sample in sorted(metrics, key=lambda each: (each.name, *each.labels.items())):
        labels = ", ".join(f"{name}={value}" for name, value in sample.labels.items())
        lines.append(f"{sample.value:>14g}  {sample.name}" + (f"  {{{labels}}}" if labels else ""))
    return lines
