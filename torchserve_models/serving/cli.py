"""Command-line entry points of scripts/serve, scripts/stop and scripts/status."""

import argparse
import json
import signal
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from types import FrameType
from urllib.parse import urlsplit

from torchserve_models.client.cli_options import add_port_offset, add_ports, add_run_dir, given_ports
from torchserve_models.packing import default_models
from torchserve_models.packing.models import LAYOUT
from torchserve_models.serving.archives import preparation
from torchserve_models.serving.commands import samples, status, stopping
from torchserve_models.serving.commands.detach import start_detached
from torchserve_models.serving.commands.progress import Progress
from torchserve_models.serving.commands.run_dir_hold import hold_run_dir
from torchserve_models.serving.errors import ConfigError, Interrupted, RunError
from torchserve_models.serving.lifecycle import frontend_logs
from torchserve_models.serving.run_config import config_file
from torchserve_models.serving.run_config.ports import Ports
from torchserve_models.serving.run_config.run_dir import RunDir
from torchserve_models.serving.run_config.run_plan import GRACE_S, MAX_GRACE_S, Plan, plan
from torchserve_models.serving.run_config.state import State
from torchserve_models.serving.supervisor.supervisor import Supervisor


def main(arguments: Sequence[str] | None = None) -> int:
    """Return the exit code: 0 success, 1 failure, 2 usage or configuration error, 3 not running, 130 interrupted."""
    options = _parser().parse_args(arguments)
    try:
        return int(options.run(options))
    except RunError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    except OSError as error:
        print(f"error: {error}", file=sys.stderr)
        return RunError.exit_code
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return Interrupted.exit_code


def serve(options: argparse.Namespace) -> int:
    def make_run_plan(names: Sequence[str]) -> Plan:
        return plan(
            names,
            options.store,
            run.path,
            ports=_ports(options),
            host=options.host,
            grace=options.grace,
            drain_delay=options.drain_delay,
        )

    _on_signals(_interrupt)
    run = RunDir(options.run_dir.resolve())
    with Progress() as progress:
        with hold_run_dir(make_run_plan(()), progress.info):
            if options.no_pack:
                names = preparation.find_archives(options.names, options.store)
            else:
                names = preparation.prepare_archives(
                    options.names, options.weights, options.store, progress.info
                )
        run_plan = make_run_plan(names)
        if options.detach:
            with _copy_logs(run_plan.run, options.verbose):
                start_detached(run_plan, progress)
            _print_ready(run_plan, progress, "scripts/stop ends it.")
            return 0
        supervisor = Supervisor(run_plan, progress.info, progress.update)
    return _foreground(supervisor, progress, options.verbose)


def _foreground(supervisor: Supervisor, progress: Progress, verbose: bool) -> int:
    """Run until Ctrl-C or SIGTERM; a second signal stops without waiting for running requests."""
    info = supervisor.reporter.wrap(progress.info)
    _on_signals(supervisor.on_signal)
    with _copy_logs(supervisor.plan.run, verbose):
        try:
            with progress:
                supervisor.start()
            with suppress(OSError, ValueError):  # stdout's reader is gone: no reason to end a server
                _print_ready(supervisor.plan, progress, "Ctrl-C ends it.")
            supervisor.watch()
            info("stopping")
        except Exception as error:
            supervisor.stop("failed", str(error))
            raise
        finally:
            supervisor.stop()
    return 0


def _on_signals(action: Callable[[], None]) -> None:
    """Install `action` as the signal handler. Signals that are ignored stay ignored, as nohup requires."""

    def handle(_number: int, _frame: FrameType | None) -> None:
        action()

    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, handle)


def _interrupt() -> None:
    raise KeyboardInterrupt


def _print_ready(run_plan: Plan, progress: Progress, last: str) -> None:
    commands = samples.commands(run_plan.models, run_plan.store, run_plan.run.samples, run_plan.endpoints)
    ready = f"Ready in {progress.seconds:.0f} s. {last}"  # a handler that is not ours has no command to try
    print("\n".join([f"{ready} Try it:", *commands] if commands else [ready]), flush=True)


@contextmanager
def _copy_logs(run: RunDir, enabled: bool) -> Iterator[None]:
    """With --verbose, copy the front-end and worker logs to stderr."""
    finished = threading.Event()
    tails = [frontend_logs.Tail(path) for path in (run.server_log, run.workers_log)]

    def copy() -> None:
        while not finished.wait(0.3):
            for tail in tails:
                for line in tail.lines():
                    with suppress(OSError, ValueError):
                        print(line, file=sys.stderr, flush=True)

    thread = threading.Thread(target=copy, daemon=True)
    if enabled:
        thread.start()
    try:
        yield
    finally:
        finished.set()


def _ports(options: argparse.Namespace) -> Ports:
    """Return the ports of config.properties plus the offset; explicit port options take precedence."""
    return replace(_default_ports(options.port_offset), **given_ports(options))


def _default_ports(offset: int) -> Ports:
    return Ports.from_settings(config_file.read()).shifted(offset)


def _run_dir(options: argparse.Namespace) -> RunDir:
    """Return the run folder. Raises ConfigError if its server does not use the given port offset."""
    run = RunDir(options.run_dir.resolve())
    state = State.read(run.state)
    if state and options.port_offset:
        expected = _default_ports(options.port_offset).inference
        if urlsplit(state.endpoints.inference).port != expected:
            raise ConfigError(
                f"the server of {run.path} is at {state.endpoints.inference}, not at port {expected}; give its own "
                "--run-dir, or leave --port-offset out"
            )
    return run


def show_status(options: argparse.Namespace) -> int:
    server_status = status.get_status(_run_dir(options))
    if options.json:
        print(json.dumps(status.as_json(server_status), indent=2))
    else:
        status.print_status(server_status)
    return server_status.exit_code


def stop_server(options: argparse.Namespace) -> int:
    print(stopping.stop(_run_dir(options), now=options.now))
    return 0


def _seconds(text: str) -> float:
    seconds = float(text)
    if not 0 <= seconds <= MAX_GRACE_S:
        raise argparse.ArgumentTypeError(f"{text} is not a number of seconds (0-{MAX_GRACE_S:g})")
    return seconds


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="scripts")
    commands = parser.add_subparsers(required=True)
    run_options = argparse.ArgumentParser(add_help=False)
    add_run_dir(run_options, help="logs and state of this server; default: .run/")
    add_port_offset(run_options)

    command = commands.add_parser(
        "serve",
        prog="scripts/serve",
        parents=[run_options],
        description="Pack missing archives, start TorchServe, and wait until every model answers a test request. "
        "Stays in the foreground until Ctrl-C, unless --detach.",
    )
    command.add_argument("names", nargs="*", metavar="NAME", help=f"default: {', '.join(default_models())}")
    command.add_argument("--weights", choices=("auto", "pretrained", "starter"), default="auto")
    command.add_argument(
        "--detach", action="store_true", help="return when it is ready; stop it with scripts/stop"
    )
    command.add_argument(
        "--store", type=Path, default=LAYOUT.store, metavar="FOLDER", help="archives; model_store/"
    )
    add_ports(command)
    command.add_argument(
        "--host",
        metavar="ADDRESS",
        help="listen there, for example 0.0.0.0 in a container; management stays on this machine",
    )
    command.add_argument(
        "--no-pack",
        action="store_true",
        help="serve archives of the store without packing; all of them by default",
    )
    command.add_argument(
        "--grace",
        type=_seconds,
        default=GRACE_S,
        metavar="SECONDS",
        help="at shutdown, wait at most this long for running requests; %(default)g",
    )
    command.add_argument(
        "--drain-delay",
        type=_seconds,
        default=0.0,
        metavar="SECONDS",
        help="at shutdown, report not ready for this long before new requests are rejected; %(default)g",
    )
    command.add_argument("--verbose", action="store_true", help="show the logs as well")
    command.set_defaults(run=serve)

    command = commands.add_parser(
        "stop", prog="scripts/stop", parents=[run_options], description="Stop the server and every worker."
    )
    command.add_argument("--now", action="store_true", help="do not wait for running requests")
    command.set_defaults(run=stop_server)

    command = commands.add_parser(
        "status",
        prog="scripts/status",
        parents=[run_options],
        description="Models, weights, workers, queue and readiness, as the supervisor sees them. "
        "Exit code: 0 ready, 1 running but not ready, 3 not running.",
    )
    command.add_argument("--json", action="store_true")
    command.set_defaults(run=show_status)
    return parser
