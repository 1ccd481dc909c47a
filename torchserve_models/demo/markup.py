"""HTML of what the pages show: alerts, labels as bars, the models. What comes from outside is escaped."""

import base64
from collections.abc import Sequence
from html import escape
from pathlib import Path

from torchserve_models.client import Label, Worker
from torchserve_models.demo.backend import Overview, Shown
from torchserve_models.demo.traffic import Traffic

CSS = Path(__file__).with_name("style.css").read_text()

CUT = "The text is longer than the model reads: its end was left out."


def alert(text: str) -> str:
    return f'<p class="alert" role="alert">{escape(text)}</p>'


def answer(text: str) -> str:
    return f'<p class="answer" role="status">{escape(text)}</p>'


def note(text: str) -> str:
    return f'<p class="note" role="status">{escape(text)}</p>'


def took(seconds: float) -> str:
    """The time between a request and its answer."""
    return f'<p class="took">Answered in {seconds:.2f} s</p>'


def image(jpeg: bytes, words: str) -> str:
    """It is inside the page, with words for those who do not see it."""
    content = base64.b64encode(jpeg).decode()
    return f'<img class="image" src="data:image/jpeg;base64,{content}" alt="{escape(words)}">'


def bars(labels: Sequence[Label]) -> str:
    """The likeliest first, as the server answers them."""
    rows = "".join(
        f'<li><span class="label">{escape(each.label)}</span><span class="score">{each.score:.1%}</span>'
        f'<span class="bar"><span style="width: {min(max(each.score, 0.0), 1.0):.1%}"></span></span></li>'
        for each in labels
    )
    return f'<ol class="bars" aria-label="labels">{rows}</ol>'


def overview(seen: Overview) -> str:
    if not seen.models:
        return note("The server has no models. scripts/manage register adds one.")
    cards = "".join(
        _card(shown, seen.traffic(shown.model.name) if seen.traffic else None) for shown in seen.models
    )
    return (alert(seen.problem) if seen.problem else "") + f'<div class="models">{cards}</div>'


def _card(shown: Shown, traffic: Traffic | None) -> str:
    model = shown.model
    ready = sum(worker.ready for worker in model.workers)
    wanted = max(model.min_workers, len(model.workers))
    state = "ready" if model.ready else "waiting"
    words = f"{ready} of {wanted} workers ready" if wanted else "no workers"
    title = f'{escape(model.name)} <span class="state {state}">{words}</span>'
    facts = [("waiting", str(model.queue_waiting or 0)), *_figures(traffic)]
    figures = "".join(f"<div><dt>{escape(name)}</dt><dd>{escape(value)}</dd></div>" for name, value in facts)
    return (
        f'<section class="model" data-model="{escape(model.name)}" data-ready="{ready}">'
        f"<h3>{title}</h3><p>{escape(_about(shown))}</p><dl>{figures}</dl>{_workers(model.workers)}</section>"
    )


def _about(shown: Shown) -> str:
    metadata = shown.entry.metadata
    parts = [f"version {shown.model.version}" + ("" if shown.is_default else " (not the default)")]
    parts += [
        str(metadata[name])
        for name in ("task", "architecture", "engine", "precision", "device")
        if metadata.get(name)
    ]
    return ", ".join(parts)


def _figures(traffic: Traffic | None) -> list[tuple[str, str]]:
    if traffic is None:
        return []
    figures = [
        ("requests", f"{traffic.requests:,}"),
        ("failed", f"{traffic.failed:,}"),
        ("requests/s", f"{traffic.per_second:.1f}"),
        ("batch", "–" if traffic.batch is None else f"{traffic.batch:.1f}"),
        ("model, ms", "–" if traffic.milliseconds is None else f"{traffic.milliseconds:.0f}"),
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
    """TorchServe calls every other state UNLOADING, starting included."""
    return "ready" if worker.ready else "starting or ending"
