"""Flask behind gunicorn, one worker, behind nginx: https://docs.pytorch.org/tutorials/intermediate/flask_rest_api_tutorial.html."""

from string import Template

from benchmarks.systems.base import free_port
from benchmarks.systems.peer import Peer, Stage, program
from torchserve_models.loadgen import multipart_request


class Flask(Peer):
    name = "flask"
    title = "Flask, gunicorn, nginx"

    def prepare(self, stage: Stage) -> None:
        program("nginx")
        text = Template((stage.files / "nginx.conf").read_text())
        self._behind = free_port()
        filled = text.substitute(port=stage.port, app=self._behind, folder=stage.folder)
        (stage.folder / "nginx.conf").write_text(filled)

    def commands(self, stage: Stage) -> list[list[str]]:
        gunicorn = [str(stage.bin / "gunicorn"), "-w", "1", "-b", f"127.0.0.1:{self._behind}", "app:app"]
        log = str(stage.folder / "error.log")
        return [gunicorn, [program("nginx"), "-c", str(stage.folder / "nginx.conf"), "-e", log]]

    def request(self, image: bytes) -> bytes:
        return multipart_request(self.path, "file", image)
