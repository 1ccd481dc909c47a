"""The server as the pages see it: one for all who look, safe in any number of threads."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from client import Client, Endpoints, Label, Model, ServeError
from client.cli_options import HINT, explain, has_no_server
from demo.catalogue import Catalogue, Entry
from demo.traffic import Traffic, Watch


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
        # A look at the server says at once what is wrong: the next look comes soon enough.
        self._looking = Client(endpoints=endpoints, timeout=10, connect_timeout=2, retries=0)
        self._catalogue = Catalogue(self._looking)
        self._watch = Watch(self._looking.metrics)

    def check(self) -> None:
        """Raises ServeError when no server can be reached."""
        self._looking.list_models()

    def models(self, task: str) -> list[str]:
        """Raises ServeError."""
        return self._catalogue.names(task)

    def entry(self, name: str) -> Entry:
        """Raises ServeError."""
        return self._catalogue.entry(name)

    def classify(self, model: str, picture: bytes, top_k: int = 5) -> list[Label]:
        """Raises ServeError. A model of fewer labels gives those that it has."""
        allowed = self._catalogue.entry(model).metadata.get("labels", top_k)
        return self._client.classify(model, picture, top_k=min(top_k, int(allowed)))

    def summarize(self, model: str, text: str, **parameters: int) -> tuple[str, bool]:
        """The summary, and whether the text's end was left out. Raises ServeError."""
        chosen: dict[str, Any] = self._catalogue.entry(model).changed(parameters)
        [summary] = self._client.summarize(model, text, **chosen)
        return summary.text, summary.truncated

    def overview(self) -> Overview:
        """Everything there is now. Raises ServeError."""
        shown = []
        for entry in self._catalogue.entries():
            versions = self._looking.describe_versions(entry.name)
            for model in sorted(versions, key=lambda each: each.version):
                is_default = model.version == entry.version
                shown.append(
                    Shown(entry if is_default else Entry(entry.name, model.version), model, is_default)
                )
        try:
            return Overview(shown, self._watch.look(), "")
        except ServeError as error:
            return Overview(shown, None, said(error))

    def scale(self, model: str, workers: int) -> str:
        """Answers TorchServe's sentence when the workers are ready. Raises ServeError."""
        return self._client.scale(model, workers)


def said(error: ServeError) -> str:
    """The error in the server's own words; where there is no server, what to do about it."""
    return f"{explain(error)}. {HINT}" if has_no_server(error) else explain(error)
