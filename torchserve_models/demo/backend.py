"""The server that the pages show. One object serves all visitors, in any number of threads."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from torchserve_models.client import Client, Endpoints, Label, Model, TorchServeError
from torchserve_models.client.cli_options import HINT, explain, has_no_server
from torchserve_models.client.settings import MAX_MESSAGE_BYTES
from torchserve_models.demo.catalog import IMAGES, Catalog, Entry
from torchserve_models.demo.traffic import Traffic, Watch


@dataclass(frozen=True)
class Shown:
    """A version of a model as the server page shows it."""

    entry: Entry
    model: Model
    is_default: bool


@dataclass(frozen=True)
class Overview:
    """`traffic` is None where the metrics address does not answer, and `problem` says why."""

    models: Sequence[Shown]
    traffic: Callable[[str], Traffic] | None
    problem: str


class Backend:
    def __init__(self, endpoints: Endpoints) -> None:
        self.endpoints = endpoints
        self._client = Client(endpoints=endpoints, retries=3)
        # Without retries: an error is shown at once, and the page asks again soon.
        self._looking = Client(endpoints=endpoints, timeout=10, connect_timeout=2, retries=0)
        self._catalog = Catalog(self._looking)
        self._watch = Watch(self._looking.metrics)

    def check(self) -> None:
        """Raises TorchServeError when no server can be reached."""
        self._looking.list_models()

    def models(self, task: str) -> list[str]:
        """Raises TorchServeError."""
        return self._catalog.names(task)

    def entry(self, name: str) -> Entry:
        """Raises TorchServeError."""
        return self._catalog.entry(name)

    def classify(self, model: str, image: bytes, top_k: int = 5) -> list[Label]:
        """Raises TorchServeError. A model of fewer labels gives those that it has."""
        entry = self._catalog.entry(model)
        allowed = int(entry.metadata.get("labels", top_k))
        # Without a parameter the file is sent as it is; with one in base64, where a third less fits into a request.
        chosen: dict[str, Any] = entry.changed({"top_k": min(top_k, allowed)})
        return self._client.classify(model, image, **chosen)

    def max_upload_bytes(self) -> int:
        """The largest file that a model for images takes; what a request may have where none says it.

        Raises TorchServeError.
        """
        entries = [self.entry(name) for name in self.models(IMAGES)]
        limits = [int(entry.metadata["max_bytes"]) for entry in entries if "max_bytes" in entry.metadata]
        return min(max(limits, default=MAX_MESSAGE_BYTES), MAX_MESSAGE_BYTES)

    def summarize(self, model: str, text: str, **parameters: int) -> tuple[str, bool]:
        """The summary, and whether the text's end was left out. Raises TorchServeError."""
        chosen: dict[str, Any] = self._catalog.entry(model).changed(parameters)
        [summary] = self._client.summarize(model, text, **chosen)
        return summary.text, summary.truncated

    def overview(self) -> Overview:
        """Everything there is now. Raises TorchServeError."""
        shown = []
        for entry in self._catalog.entries():
            versions = self._looking.describe_versions(entry.name)
            for model in sorted(versions, key=lambda each: each.version):
                is_default = model.version == entry.version
                shown.append(
                    Shown(entry if is_default else Entry(entry.name, model.version), model, is_default)
                )
        try:
            return Overview(shown, self._watch.look(), "")
        except TorchServeError as error:
            return Overview(shown, None, said(error))

    def scale(self, model: str, workers: int) -> str:
        """Answers TorchServe's sentence when the workers are ready. Raises TorchServeError."""
        return self._client.scale(model, workers)


def said(error: TorchServeError) -> str:
    """The error in the server's own words; where there is no server, what to do about it."""
    return f"{explain(error)}. {HINT}" if has_no_server(error) else explain(error)
