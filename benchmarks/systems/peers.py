"""The other servers and libraries, set up as documented by their projects, each in a virtual environment."""

import base64
import json
import os
import shutil
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from types import MappingProxyType
from typing import Any

import psutil

from benchmarks import environments
from benchmarks.errors import last_line
from benchmarks.report.results import Row
from benchmarks.scenarios.base import BuildRequest, ImageScenario
from benchmarks.scenarios.workloads import TextRequest
from benchmarks.systems.base import (
    START_TIMEOUT_S,
    ImageLoad,
    Load,
    RunContext,
    System,
    TextLoad,
    find_free_ports,
)
from torchserve_models.loadgen import multipart_request, post_request, wait_until_answering
from torchserve_models.processes import kill_processes, session_processes, start_session

STOP_TIMEOUT_S = 10.0
"""Time between SIGTERM and SIGKILL."""
MAX_PORTS = 5
_REMOVED_VARIABLES = ["PYTHONPATH", "OMP_NUM_THREADS", "OMP_WAIT_POLICY", "GOMP_SPINCOUNT"]
_REMOVED_VARIABLES += ["THP_MEM_ALLOC_ENABLE", "MKL_NUM_THREADS"]
"""Variables of this process that would affect the computations of a peer."""


class Peer(System):
    """A server whose script `run` is in a folder of benchmarks/peers/, which is its working directory.

    The script has these variables: TASK ("image" or "text"), the folder MODEL, the empty folder FOLDER, and the free
    ports PORT and PORT_2 to PORT_5. It serves on PORT until it is ended.
    """

    def __init__(
        self,
        folder: str,
        rows: Sequence[Row],
        build_request: BuildRequest,
        environment: Mapping[str, str] = MappingProxyType({}),
        requirements: str | None = "requirements.txt",
        load_type: type[TextLoad] = TextLoad,
    ) -> None:
        """Set how the server is installed and started.

        Args:
            folder: Folder in benchmarks/peers/.
            rows: Its rows.
            build_request: Returns the HTTP request for an image or a text.
            environment: Further variables.
            requirements: File in `folder`; None if this project's environment is used.
            load_type: The load of text workloads.
        """
        super().__init__(*rows)
        self.files, self.build_request, self.requirements = (
            environments.PEERS / folder,
            build_request,
            requirements,
        )
        self._environment, self._load_type = environment, load_type
        for row in rows:
            row.is_peer = True

    def start(self, context: RunContext) -> None:
        scenario = context.scenario
        bin_folder = self.install(context.root / "venvs")
        folder = (context.root / "run" / f"{self.rows[0].name}-{scenario.served_as}").resolve()
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        variables = {key: value for key, value in os.environ.items() if key not in _REMOVED_VARIABLES}
        variables |= {"TASK": scenario.task, "MODEL": str(scenario.folder.resolve()), "FOLDER": str(folder)}
        ports = find_free_ports(MAX_PORTS)
        variables |= {f"PORT_{number}": str(port) for number, port in enumerate(ports, start=1)}
        variables |= {"PORT": str(ports[0]), "HF_HUB_OFFLINE": "1", **self._environment}
        variables["PYTHONPATH"] = str(environments.PEERS)  # for peer_models.py
        variables["PATH"] = f"{bin_folder}:{variables.get('PATH', '')}"
        self._port, self._log = ports[0], folder / "output.txt"
        with open(self._log, "wb") as log:
            self._process = start_session([str(self.files / "run")], variables, cwd=self.files, output=log)
        target = scenario.probe_target(self.build_request, self._port)
        try:
            wait_until_answering(target, self._find_failure, START_TIMEOUT_S)
        except BaseException:
            self.stop()
            raise

    def install(self, venvs: Path) -> Path:
        """Install the requirements, and return the folder of commands. Raises SystemUnavailable."""
        if self.requirements is None:
            return Path(sys.executable).parent
        requirements = self.files / self.requirements
        name = self.files.name if requirements.stem == "requirements" else requirements.stem
        return environments.install(name, venvs, requirements)

    def _find_failure(self) -> str | None:
        """Return the last line of the output if the script has ended."""
        if self._process.poll() is None:
            return None
        return f"ended during startup: {last_line(self._log.read_text(errors='replace'))}"

    def stop(self) -> None:
        processes = self.list_processes()
        for process in processes:
            with suppress(psutil.Error):
                process.terminate()
        psutil.wait_procs(processes, timeout=STOP_TIMEOUT_S)
        kill_processes(partial(session_processes, self._process.pid))
        self._process.wait()

    def root_processes(self) -> list[psutil.Process]:
        return [psutil.Process(self._process.pid)] if self._process.poll() is None else []

    def connect(self, row: Row, context: RunContext) -> Load:
        scenario = context.scenario
        if isinstance(scenario, ImageScenario):
            return ImageLoad(scenario.probe_target(self.build_request, self._port), context.generator)
        targets = scenario.targets(self.build_request, self._port, row.variant)
        return self._load_type(*targets, context.generator)


def build_form_request(image: bytes) -> bytes:
    return multipart_request("/predict", "file", image)


def build_json_request(sample: bytes | TextRequest) -> bytes:
    return _post_json("/predict", _as_json(sample))


def build_mlserver_request(sample: bytes | TextRequest) -> bytes:
    """Return a request of the Open Inference Protocol with one string, which is JSON."""
    tensor = {"name": "request", "shape": [1], "datatype": "BYTES", "parameters": {"content_type": "str"}}
    return _post_json(
        "/v2/models/model/infer", {"inputs": [tensor | {"data": [json.dumps(_as_json(sample))]}]}
    )


def _as_json(sample: bytes | TextRequest) -> dict[str, Any]:
    """Return an image in base64, or a text that begins with the model's prefix, as in the model card of T5."""
    if isinstance(sample, bytes):
        return {"image": base64.b64encode(sample).decode()}
    return {"text": sample.prefix + sample.text, "parameters": sample.parameters}


def _post_json(path: str, body: object) -> bytes:
    return post_request(path, json.dumps(body).encode(), "application/json")
