"""FastAPI on uvicorn: https://fastapi.tiangolo.com/tutorial/request-files/."""

from benchmarks.systems.peer import Peer, Stage
from torchserve_models.loadgen import multipart_request


class FastApi(Peer):
    name = "fastapi"
    title = "FastAPI, uvicorn"

    def commands(self, stage: Stage) -> list[list[str]]:
        return [[str(stage.bin / "uvicorn"), "app:app", "--host", "127.0.0.1", "--port", str(stage.port)]]

    def request(self, image: bytes) -> bytes:
        return multipart_request(self.path, "file", image)
