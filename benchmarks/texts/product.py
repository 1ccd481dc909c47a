"""This repository as summarizer: packed from the model's folder and served as scripts/serve does."""

import json
from contextlib import ExitStack

from benchmarks.errors import Unavailable
from benchmarks.systems.base import Workplace, wait_for_answer
from benchmarks.systems.product import Ours, started
from benchmarks.texts.models import TextModel
from benchmarks.texts.systems import TextServer, target
from benchmarks.texts.workloads import Asked, probe
from torchserve_models.loadgen import LoadGenerator, post_request
from torchserve_models.packing import Packed, PackingError, pack
from torchserve_models.tuning.config_file import copy_archive_with_config

NAME, INT8 = "product", "product-int8"


def packed(model: TextModel, place: Workplace) -> Packed:
    """The archive of the benchmark's weights with the configuration of models/. Raises Unavailable."""
    try:
        return pack(model.served_as, source=place.model, store=place.root / "store-texts", report=place.say)
    except PackingError as error:
        raise Unavailable(f"not packed: {error}") from error


class Product(TextServer):
    """With the model-config.yaml of models/, or with `precision: int8` in it."""

    def __init__(self, model: TextModel, int8: bool = False) -> None:
        super().__init__(model)
        self.name = INT8 if int8 else NAME
        self.title = "**this repository**, REST" + (", int8" if int8 else "")
        self.workloads = ("a",) if int8 else self.workloads
        self._int8 = int8

    def start(self, place: Workplace, generator: LoadGenerator) -> Ours:
        model, archive = self.model.served_as, packed(self.model, place)
        store = archive.path.parent
        if self._int8:
            store = place.root / "store-texts-int8"
            store.mkdir(exist_ok=True)
            copy_archive_with_config(archive.path, store / archive.path.name, {"handler.precision": "int8"})
        server, facts = started(model, store, place.root / "run" / f"{self.name}-{model}")
        with ExitStack() as stack:
            stack.callback(server.stop)
            port = int(server.inference.rpartition(":")[2])
            asked = target(self, port, [probe(self.model)])
            wait_for_answer(asked, lambda: str(server.failure) if server.failure else None)
            stack.pop_all()
        return Ours(asked, generator, server, facts, server.stop)

    def request(self, asked: Asked) -> bytes:
        """The prefix is the model's business here."""
        body = {"inputs": asked.text, "parameters": asked.parameters}
        return post_request(
            f"/predictions/{self.model.served_as}", json.dumps(body).encode(), "application/json"
        )
