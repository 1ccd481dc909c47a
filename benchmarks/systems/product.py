"""This repository, packed and served by its commands, over REST and gRPC."""

import json
import subprocess
import time
from collections import Counter
from dataclasses import replace
from functools import partial
from pathlib import Path
from types import MappingProxyType

import psutil

from benchmarks.errors import SystemUnavailable, last_line
from benchmarks.instruction_sets import held_to
from benchmarks.report.results import Row
from benchmarks.scenarios import images
from benchmarks.scenarios.base import ImageScenario
from benchmarks.scenarios.workloads import TextRequest
from benchmarks.systems.base import START_TIMEOUT_S, ImageLoad, Load, RunContext, System, TextLoad
from handlers.core.metrics import (
    ACCEPTED_DRAFT_TOKENS,
    DRAFT_TOKENS,
    FLUSH_INTERVAL_S,
    GENERATED_TOKENS,
)
from torchserve_models import serving
from torchserve_models.client import Client, TorchServeError
from torchserve_models.loadgen import Target, post_request, wait_until_answering
from torchserve_models.packing import PackingError, PackRequest, pack
from torchserve_models.serving.run_config.state import RunState
from torchserve_models.tuning.config_file import Changes, copy_archive_with_config

GRPC_METHOD = "/org.pytorch.serve.grpc.inference.InferenceAPIsService/Predictions"
CALIBRATION_IMAGES = 300
NO_CHANGES: Changes = MappingProxyType({})
INT8: Changes = MappingProxyType({"handler.precision": "int8"})
"""For images, int8 also requires calibration when packing."""
DESCRIBED = ("version", "engine", "precision", "reason", "threads", "device")
_SETUP = Path(__file__).resolve().parents[2] / "scripts" / "setup"


class Product(System):
    """A server of this repository. For images, REST and gRPC are two rows; for texts, each workload is a row."""

    def __init__(self, name: str, *rows: Row, changes: Changes = NO_CHANGES) -> None:
        """Set the name of the run folder and what differs from the model's model-config.yaml."""
        super().__init__(*rows)
        self._name, self._changes = name, changes
        self._server: serving.Server | None = None

    def start(self, context: RunContext) -> None:
        model = context.scenario.served_as
        if context.scenario.task == "image":
            archive = pack_image_model(context, int8=self._changes == INT8)
        else:
            archive = self._pack_text_model(context)
        self._run_dir = context.root / "run" / f"{self._name}-{model}"
        try:
            self._server = serving.start([model], run_dir=self._run_dir, store=archive.parent, pack=False)
        except serving.RunError as error:
            raise SystemUnavailable(str(error)) from error
        self._client = Client(endpoints=self._server.endpoints)
        try:
            metadata = self._client.describe(model, customized=True).metadata or {}
        except TorchServeError as error:
            self.stop()
            raise SystemUnavailable(f"the model cannot be described: {error}") from error
        self.facts = {key: metadata.get(key) for key in DESCRIBED}

    def stop(self) -> None:
        if self._server:
            self._client.close()
            self._server.stop()

    def root_processes(self) -> list[psutil.Process]:
        state = RunState.read(self._run_dir / "state.json")
        frontend = state.frontend if state else None  # the workers are its children
        return [psutil.Process(frontend.pid)] if frontend and frontend.alive() else []

    def connect(self, row: Row, context: RunContext) -> Load:
        assert self._server
        scenario, generator, port = context.scenario, context.generator, _port(self._server.inference)
        build_request = partial(build_rest_request, scenario.served_as)
        target = scenario.probe_target(build_request, port)
        if row.variant == "grpc" and isinstance(scenario, ImageScenario):
            target = _grpc_target(target, _port(self._server.grpc_inference), scenario.images)
        wait_until_answering(target, self._find_failure, START_TIMEOUT_S)
        if isinstance(scenario, ImageScenario):
            return ImageLoad(target, generator)
        targets = scenario.targets(build_request, port, row.variant)
        return TextLoad(*targets, generator, self._read_counters)

    def _find_failure(self) -> str | None:
        return str(self._server.failure) if self._server and self._server.failure else None

    def _read_counters(self) -> Counter[str]:
        time.sleep(2 * FLUSH_INTERVAL_S)  # the worker's last values
        names = (GENERATED_TOKENS, DRAFT_TOKENS, ACCEPTED_DRAFT_TOKENS)
        return Counter({sample.name: int(sample.value) for sample in self._client.metrics(names)})

    def _pack_text_model(self, context: RunContext) -> Path:
        archive = _pack(context, "store-texts")
        if not self._changes:
            return archive
        changed = context.root / "run" / f"{self._name}-store" / archive.name
        changed.parent.mkdir(parents=True, exist_ok=True)
        copy_archive_with_config(archive, changed, self._changes)
        return changed


def _port(address: str) -> int:
    return int(address.rpartition(":")[2])


def build_rest_request(model: str, sample: bytes | TextRequest) -> bytes:
    """Return a request for an image or a text. Texts have no prefix, because the handler adds it."""
    if isinstance(sample, bytes):
        return post_request(f"/predictions/{model}", sample, "image/jpeg")
    body = {"inputs": sample.text, "parameters": sample.parameters}
    return post_request(f"/predictions/{model}", json.dumps(body).encode(), "application/json")


def _grpc_target(rest_target: Target, port: int, samples: tuple[bytes, ...]) -> Target:
    from torchserve_models.client._stubs.inference_pb2 import PredictionsRequest

    messages = [PredictionsRequest(model_name="resnet-50", input={"image": image}) for image in samples]
    serialized = tuple(message.SerializeToString() for message in messages)
    return replace(rest_target, port=port, requests=serialized, protocol="grpc", path=GRPC_METHOD)


def pack_image_model(context: RunContext, int8: bool) -> Path:
    """Pack the weights of the benchmark and return the archive. Raises SystemUnavailable."""
    if not int8:
        return _pack(context, "store", "none")
    setup = subprocess.run([_SETUP, "--calibrate", "--quiet"], capture_output=True, text=True)
    if setup.returncode:
        line = last_line(setup.stderr.strip() or setup.stdout)
        raise SystemUnavailable(f"the packages for int8 calibration cannot be installed: {line}")
    photos = images.write_photos(context.root / "calibration", images.CALIBRATION_SEED, CALIBRATION_IMAGES)
    return _pack(context, "store-int8", str(photos))


def _pack(context: RunContext, store: str, calibrate: str | None = None) -> Path:
    scenario = context.scenario
    folder = context.root / "-".join(filter(None, (store, held_to())))  # packing depends on the instructions
    request = PackRequest(scenario.served_as, source=scenario.folder, store=folder, calibrate=calibrate)
    try:
        return pack(request, context.report).path
    except PackingError as error:
        raise SystemUnavailable(f"packing failed: {error}") from error
