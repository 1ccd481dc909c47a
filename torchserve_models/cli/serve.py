"""The commands `serve`, `status` and `stop`."""

import json
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated
from urllib.parse import urlsplit

import typer

from torchserve_models.cli.options import (
    JsonOutput,
    PortOffset,
    RunDirOption,
    ServerPorts,
    StoreOption,
    WeightsOption,
    parse_duration,
)
from torchserve_models.cli.typer_helpers import create_app, examples, expand_options
from torchserve_models.client.endpoints import RUN_DIR
from torchserve_models.exit_codes import ExitCode
from torchserve_models.signals import handle_termination

if TYPE_CHECKING:
    from torchserve_models.serving.run_config.ports import Ports
    from torchserve_models.serving.run_config.run_dir import RunDir
    from torchserve_models.serving.run_config.run_plan import RunPlan

app = create_app()


@dataclass(frozen=True, kw_only=True)
class ServeOptions:
    """The options of `serve` besides the ports."""

    names: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="NAME",
            show_default="the models with starter weights; with --no-pack, every archive of the store",
            help="Models to serve.",
        ),
    ] = None
    weights: WeightsOption = "auto"
    detach: Annotated[
        bool, typer.Option("--detach", help="Return when the server is ready; scripts/stop stops it.")
    ] = False
    store: StoreOption = None
    host: Annotated[
        str | None,
        typer.Option(
            metavar="ADDRESS",
            help="Listen address, for example 0.0.0.0 in a container; management stays on this machine.",
        ),
    ] = None
    no_pack: Annotated[
        bool, typer.Option("--no-pack", help="Serve archives of the store without packing.")
    ] = False
    fresh: Annotated[
        bool,
        typer.Option("--fresh", help="Discard the models, versions and worker counts of the last run."),
    ] = False
    grace: Annotated[
        float,
        typer.Option(
            parser=parse_duration,
            metavar="SECONDS",
            help="At shutdown, wait at most this long for running requests.",
        ),
    ] = 60.0
    drain_delay: Annotated[
        float,
        typer.Option(
            parser=parse_duration,
            metavar="SECONDS",
            help="At shutdown, report not ready for this long before new requests are rejected.",
        ),
    ] = 0.0
    verbose: Annotated[bool, typer.Option("--verbose", help="Copy the server's logs to stderr.")] = False
    run_dir: RunDirOption = RUN_DIR
    port_offset: PortOffset = 0


@app.command(
    "serve",
    epilog=examples(
        "serve",
        "serve resnet-50 --weights starter --detach",
        "serve --no-pack --store model_store --host 0.0.0.0",
        "serve t5-small --run-dir .run-2 --port-offset 100",
    ),
)
@expand_options
def serve_command(*, options: ServeOptions, ports: ServerPorts) -> int:
    """Pack missing archives, start TorchServe, and wait until every model answers.

    Restores the models, versions and worker counts of the last run, unless --fresh is given. Stays in the foreground
    until Ctrl-C, unless --detach is given.
    """
    return _run(lambda: _serve(options, ports))


def _serve(options: ServeOptions, ports: ServerPorts) -> int:
    from torchserve_models.packing.models import LAYOUT
    from torchserve_models.serving.archives import preparation
    from torchserve_models.serving.commands import serve_foreground
    from torchserve_models.serving.commands.detach import start_detached
    from torchserve_models.serving.commands.progress import Progress
    from torchserve_models.serving.commands.run_dir_hold import hold_run_dir
    from torchserve_models.serving.run_config.run_dir import RunDir
    from torchserve_models.serving.run_config.run_plan import plan_run
    from torchserve_models.serving.supervisor.supervisor import Supervisor

    store = options.store or LAYOUT.store
    run = RunDir(options.run_dir.resolve())

    def make_run_plan(names: Sequence[str]) -> "RunPlan":
        return plan_run(
            names,
            store,
            run.path,
            ports=replace(_default_ports(options.port_offset), **ports.by_service()),
            host=options.host,
            grace=options.grace,
            drain_delay=options.drain_delay,
            named=bool(options.names),
            fresh=options.fresh,
        )

    handle_termination()
    with Progress() as progress:
        with hold_run_dir(make_run_plan(()), progress.info):
            if options.no_pack:
                names = preparation.find_archives(options.names or [], store)
            else:
                names = preparation.prepare_archives(
                    options.names or [], options.weights, store, progress.info
                )
        run_plan = make_run_plan(names)
        if options.detach:
            with serve_foreground.copy_logs(run_plan.run, options.verbose):
                start_detached(run_plan, progress)
            serve_foreground.print_ready(run_plan, progress, "scripts/stop ends it.")
            return ExitCode.SUCCESS
        supervisor = Supervisor(run_plan, progress.info, progress.update)
    serve_foreground.run_supervisor(supervisor, progress, options.verbose)
    return ExitCode.SUCCESS


@app.command("status", epilog=examples("status", "status --json", "status --run-dir .run-2"))
@expand_options
def status_command(
    *, as_json: JsonOutput = False, run_dir: RunDirOption = RUN_DIR, port_offset: PortOffset = 0
) -> int:
    """Show models, weights, workers, queue and readiness.

    Exit code 0 if the server is ready, 1 if it runs but is not ready, 3 if it does not run.
    """

    def show_status() -> int:
        from torchserve_models.serving.commands import status

        server_status = status.get_status(_find_run_dir(run_dir, port_offset))
        if as_json:
            print(json.dumps(status.as_json(server_status), indent=2))
        else:
            status.print_status(server_status)
        return server_status.exit_code

    return _run(show_status)


@app.command("stop", epilog=examples("stop", "stop --now", "stop --run-dir .run-2"))
@expand_options
def stop_command(
    *,
    now: Annotated[bool, typer.Option("--now", help="Do not wait for running requests.")] = False,
    run_dir: RunDirOption = RUN_DIR,
    port_offset: PortOffset = 0,
) -> int:
    """Stop the server and every worker.

    Exit code 0 if it has stopped or did not run.
    """

    def stop_server() -> int:
        from torchserve_models.serving.commands import stop_command

        print(stop_command.stop(_find_run_dir(run_dir, port_offset), now=now))
        return ExitCode.SUCCESS

    return _run(stop_server)


def _run(command: Callable[[], int]) -> int:
    """Run a command and return its exit code, or the exit code of the error that it raises."""
    from torchserve_models.serving.errors import RunError

    try:
        return command()
    except RunError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    except OSError as error:
        print(f"error: {error}", file=sys.stderr)
        return ExitCode.FAILURE
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return ExitCode.INTERRUPTED


def _default_ports(offset: int) -> "Ports":
    """Return the ports of config.properties plus the offset."""
    from torchserve_models.serving.run_config import config_file
    from torchserve_models.serving.run_config.ports import Ports

    return Ports.from_settings(config_file.read()).shifted(offset)


def _find_run_dir(path: Path, port_offset: int) -> "RunDir":
    """Return the run folder. Raises ConfigError if its server uses another port offset."""
    from torchserve_models.serving.errors import ConfigError
    from torchserve_models.serving.run_config.run_dir import RunDir
    from torchserve_models.serving.run_config.state import RunState

    run = RunDir(path.resolve())
    state = RunState.read(run.state)
    if state and port_offset:
        expected = _default_ports(port_offset).inference
        if urlsplit(state.endpoints.inference).port != expected:
            raise ConfigError(
                f"the server of {run.path} is at {state.endpoints.inference}, not at port {expected}; set --run-dir "
                "to the folder of the server that you mean, or omit --port-offset"
            )
    return run
