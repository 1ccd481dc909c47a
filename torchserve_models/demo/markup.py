"""HTML fragments of the pages: alerts, bars for labels, and models. External text is escaped."""

import base64
from collections.abc import Sequence
from html import escape
from pathlib import Path

from torchserve_models.client import Label, Worker
from torchserve_models.demo.backend import ModelVersion, Overview
from torchserve_models.demo.traffic import TrafficStats

CSS = Path(__file__).with_name("style.css").read_text()

TRUNCATED = "The text is longer than the model accepts, so it was truncated."


def alert(text: str) -> str:
    return f'<p class="alert" role="alert">{escape(text)}</p>'


def answer(text: str) -> str:
    return f'<p class="answer" role="status">{escape(text)}</p>'


def note(text: str) -> str:
    return f'<p class="note" role="status">{escape(text)}</p>'


def response_time(seconds: float) -> str:
    """Return a note with the time between a request and its response."""
    return f'<p class="response-time">Answered in {seconds:.2f} s</p>'


def image(jpeg: bytes, words: str) -> str:
    """Return an image as a data URL with the alternative text `words`."""
    content = base64.b64encode(jpeg).decode()
    return f'<img class="image" src="data:image/jpeg;base64,{content}" alt="{escape(words)}">'


def bars(labels: Sequence[Label]) -> str:
    """Return a list with one bar per label, in the order of the response."""
    rows = "".join(
        f'<li><span class="label">{escape(label.label)}</span><span class="score">{label.score:.1%}</span>'
        f'<span class="bar"><span style="width: {min(max(label.score, 0.0), 1.0):.1%}"></span></span></li>'
        for label in labels
    )
    return f'<ol class="bars" aria-label="labels">{rows}</ol>'


def overview(server: Overview) -> str:
    """Return a card per model version, and an alert if the metrics are missing."""
    if not server.models:
        return note("The server has no models. scripts/manage register adds one.")
    cards = "".join(
        _card(version, server.traffic(version.model.name) if server.traffic else None)
        for version in server.models
    )
    return (alert(server.problem) if server.problem else "") + f'<div class="models">{cards}</div>'


def _card(version: ModelVersion, traffic: TrafficStats | None) -> str:
    model = version.model
    ready = sum(worker.ready for worker in model.workers)
    total = max(model.min_workers, len(model.workers))
    state = "ready" if model.ready else "waiting"
    words = f"{ready} of {total} workers ready" if total else "no workers"
    title = f'{escape(model.name)} <span class="state {state}">{words}</span>'
    facts = [("waiting", str(model.queue_waiting or 0)), *_figures(traffic)]
    figures = "".join(f"<div><dt>{escape(name)}</dt><dd>{escape(value)}</dd></div>" for name, value in facts)
    return (
        f'<section class="model" data-model="{escape(model.name)}" data-ready="{ready}">'
        f"<h3>{title}</h3><p>{escape(_describe(version))}</p><dl>{figures}</dl>{_workers(model.workers)}</section>"
    )


def _describe(version: ModelVersion) -> str:
    metadata = version.entry.metadata
    parts = [f"version {version.model.version}" + ("" if version.is_default else " (not the default)")]
    parts += [
        str(metadata[name])
        for name in ("task", "architecture", "engine", "precision", "device")
        if metadata.get(name)
    ]
    return ", ".join(parts)


def _figures(traffic: TrafficStats | None) -> list[tuple[str, str]]:
    if traffic is None:
        return []
    figures = [
        ("requests", f"{traffic.requests:,}"),
        ("failed", f"{traffic.failed:,}"),
        ("requests/s", f"{traffic.requests_per_second:.1f}"),
        ("batch", "–" if traffic.batch_size is None else f"{traffic.batch_size:.1f}"),
        ("model, ms", "–" if traffic.inference_ms is None else f"{traffic.inference_ms:.0f}"),
    ]
    return figures + ([("tokens/s", f"{traffic.tokens_per_second:.0f}")] if traffic.tokens_per_second else [])


def _workers(workers: Sequence[Worker]) -> str:
    if not workers:
        return ""
    rows = "".join(
        f"<tr><td>{escape(worker.id)}</td><td>{_state(worker)}</td><td>{worker.pid}</td>"
        f"<td>{'GPU' if worker.gpu else 'CPU'}</td></tr>"
        for worker in workers
    )
    head = "".join(f'<th scope="col">{name}</th>' for name in ("worker", "state", "process", "on"))
    return f"<table><thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table>"


def _state(worker: Worker) -> str:
    """Return the text for a worker's state. TorchServe also reports UNLOADING for a worker that is starting."""
    return "ready" if worker.ready else "starting or stopping"
