"""The product: packed and served as a user would, over REST and gRPC, in the precision it takes by itself or int8."""

import shutil
import subprocess
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import psutil

from benchmarks import images
from benchmarks.errors import Unavailable, last_line
from benchmarks.systems.base import Served, System, Workplace, labeled, wait_for_answer
from benchmarks.systems.shared import Shared
from torchserve_models import serving
from torchserve_models.client import Client, TorchServeError
from torchserve_models.loadgen import LoadGenerator, Target, post_request
from torchserve_models.packing import Packed, PackingError, pack
from torchserve_models.serving.run_config.state import State

NAME = "resnet-50"
GRPC_METHOD = "/org.pytorch.serve.grpc.inference.InferenceAPIsService/Predictions"
CALIBRATION_IMAGES = 300
_SETUP = Path(__file__).resolve().parents[2] / "scripts" / "setup"


def packed(place: Workplace, int8: bool) -> Packed:
    """The archive of the benchmark's weights with the configuration of models/resnet-50. Raises Unavailable."""
    store = place.root / ("store-int8" if int8 else "store")
    calibrate = "none"
    if int8:
        _install_calibration()
        folder = place.root / "calibration"
        calibrate = str(images.to_folder(folder, images.CALIBRATION_SEED, CALIBRATION_IMAGES))
    try:
        return pack(NAME, source=place.model, store=store, calibrate=calibrate, report=place.say)
    except PackingError as error:
        raise Unavailable(f"not packed: {error}") from error


def _install_calibration() -> None:
    done = subprocess.run([_SETUP, "--calibrate", "--quiet"], capture_output=True, text=True)
    if done.returncode:
        last = last_line(done.stderr.strip() or done.stdout)
        raise Unavailable(f"what int8 is made with is not installed: {last}")


class Product(System):
    """REST and gRPC of one precision are two systems on one and the same server."""

    def __init__(self, name: str, title: str, protocol: str, int8: bool, servers: "Servers") -> None:
        self.name, self.title, self._protocol, self._int8 = name, title, protocol, int8
        self._servers = servers

    def start(self, place: Workplace, generator: LoadGenerator) -> "Ours":
        server, facts = self._servers.get(self._int8, lambda: _start(place, self._int8))
        target = rest(server, place) if self._protocol == "rest" else grpc(server, place)
        try:
            wait_for_answer(target, lambda: str(server.failure) if server.failure else None)
        except BaseException as error:
            self._servers.failed(self._int8, error)
            raise
        self._servers.enter(self._int8, self.name)
        return Ours(target, generator, server, facts, lambda: self._servers.leave(self._int8, self.name))


def rest(server: serving.Server, place: Workplace) -> Target:
    port = int(server.inference.rpartition(":")[2])
    return labeled(
        "127.0.0.1", port, [post_request(f"/predictions/{NAME}", each, "image/jpeg") for each in place.images]
    )


def grpc(server: serving.Server, place: Workplace) -> Target:
    from torchserve_models.client._stubs import inference_pb2

    port = int(server.grpc_inference.rpartition(":")[2])
    messages = [
        inference_pb2.PredictionsRequest(model_name=NAME, input={"image": each}).SerializeToString()
        for each in place.images
    ]
    plain = labeled("127.0.0.1", port, messages)
    return Target(plain.host, port, plain.requests, plain.marker, plain.count, "grpc", GRPC_METHOD)


Found = tuple[serving.Server, dict[str, Any]]
"""A server, and what its describe API says."""


class Servers(Shared[bool, Found]):
    """One server for each precision."""

    def __init__(self) -> None:
        super().__init__(lambda found: found[0].stop())


def _start(place: Workplace, int8: bool) -> Found:
    archive = packed(place, int8)
    folder = place.root / "run" / ("product-int8" if int8 else "product")
    return started(NAME, archive.path.parent, folder)


def started(name: str, store: Path, folder: Path) -> Found:
    """The model of that archive in `store`, served as scripts/serve does. Raises Unavailable."""
    clear_run(folder)
    try:
        server = serving.start([name], run_dir=folder, store=store, pack=False)
    except serving.RunError as error:
        raise Unavailable(str(error)) from error
    with ExitStack() as stack:
        stack.callback(server.stop)
        try:
            found = server, _describe(name, server)
        except TorchServeError as error:
            raise Unavailable(f"does not say what it serves: {error}") from error
        stack.pop_all()
    return found


def clear_run(folder: Path) -> None:
    """Removes what a server has left there. Raises Unavailable while it lives."""
    state = State.read(folder / "state.json")
    if state and state.frontend and state.frontend.alive():
        raise Unavailable(
            f"a server of an earlier run still runs (process {state.frontend.pid}); end it first"
        )
    shutil.rmtree(folder, ignore_errors=True)


def _describe(name: str, server: serving.Server) -> dict[str, Any]:
    with Client(endpoints=server.endpoints) as connection:
        metadata = connection.describe(name, customized=True).metadata or {}
    return {
        key: metadata.get(key) for key in ("version", "engine", "precision", "reason", "threads", "device")
    }


class Ours(Served):
    """`leave` is called when it is needed no longer."""

    def __init__(
        self,
        target: Target,
        generator: LoadGenerator,
        server: serving.Server,
        facts: dict[str, Any],
        leave: Callable[[], None],
    ) -> None:
        super().__init__(target, generator)
        self.facts = facts
        self._server, self._leave = server, leave

    def processes(self) -> list[psutil.Process]:
        state = State.read(self._server.run_dir / "state.json")
        frontend = state.frontend if state else None
        return [psutil.Process(frontend.pid)] if frontend and frontend.alive() else []

    def stop(self) -> None:
        self._leave()
