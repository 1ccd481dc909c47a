"""python charts.py results.json FOLDER: draw the charts of a run. Requires only matplotlib."""

import json
import sys
from collections.abc import Iterable
from itertools import cycle
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")
from matplotlib import pyplot

_PRODUCT_COLORS = ["#d62728", "#ff9896", "#9467bd", "#c5b0d5"]
_OTHER_COLORS = [
    "#1f77b4",
    "#2ca02c",
    "#17becf",
    "#bcbd22",
    "#8c564b",
    "#ff7f0e",
    "#7f7f7f",
    "#9edae5",
    "#111111",
]
_SIZE_INCHES, _DPI = (7.5, 4.2), 130


def draw_throughput(results: dict[str, Any], path: Path) -> None:
    """Draw requests/s over the number of clients, with horizontal lines for the ceilings."""
    figure, axes = pyplot.subplots(figsize=_SIZE_INCHES)
    concurrency = [str(connections) for connections in results["concurrency"]]
    for system, style in _styles(results["systems"]):
        rates = {key: summary["requests_per_second"] for key, summary in system["closed"].items()}
        if rates and system["name"].startswith("ceiling"):
            axes.axhline(max(rates.values()), linestyle="-.", **style)
        elif rates:
            axes.plot(concurrency, [rates.get(key) for key in concurrency], marker="o", **style)
    axes.set(xlabel="concurrent clients", ylabel="requests/s")
    axes.set_ylim(bottom=0)
    _save(figure, axes, path)


def draw_latency(results: dict[str, Any], path: Path) -> None:
    """Draw p50 and p99 over the offered rate; both axes are logarithmic."""
    figure, axes = pyplot.subplots(figsize=_SIZE_INCHES)
    for system, style in _styles(results["systems"]):
        answered = [summary for summary in system["open"] if summary["p50"]]
        points = sorted((s["offered_per_second"], s["p50"], s["p99"]) for s in answered)
        if points:
            rates, medians, tails = zip(*points, strict=True)
            axes.plot(rates, medians, marker="o", markersize=4, **style)
            axes.plot(
                rates, tails, marker="_", markersize=9, linestyle=":", linewidth=1, color=style["color"]
            )
    if not axes.lines:
        return
    axes.set(xscale="log", yscale="log")
    limits = axes.get_xlim()
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_formatter("{x:g}")
        axis.set_minor_formatter("")
    axes.set_xticks([1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 2000, 5000])
    axes.set_xlim(limits)
    axes.set(xlabel="requests/s offered (Poisson arrivals)", ylabel="ms: p50 (line), p99 (dotted)")
    _save(figure, axes, path)


def draw_tokens(results: dict[str, Any], path: Path) -> None:
    """Draw new tokens/s with 8 clients: for each model and workload, a bar for each system."""
    models = results["models"]
    size = (_SIZE_INCHES[0], 3.2 * len(models))
    figure, rows = pyplot.subplots(len(models), figsize=size, squeeze=False)
    titles = {system["system"]: system["title"] for model in models.values() for system in model["systems"]}
    colors = _choose_colors(titles)
    for axes, (model, model_results) in zip(rows[:, 0], models.items(), strict=True):
        ticks: dict[str, float] = {}
        position = 0
        for workload in results["workloads"]:
            systems = [system for system in model_results["systems"] if system["workload"] == workload]
            first = position
            for system in systems:
                if summary := system["closed"].get("8"):
                    axes.bar(
                        position, summary["tokens_per_second"], width=0.9, color=colors[system["system"]]
                    )
                    position += 1
            ticks[f"({workload})"] = (first + position - 1) / 2
            position += 1
        axes.set_xticks(list(ticks.values()), list(ticks))
        axes.set(ylabel="new tokens/s, 8 clients", title=model)
        for name, title in titles.items():
            axes.bar(0, 0, color=colors[name], label=title)
        _remove_clutter(axes)
    _save(figure, rows[-1, 0], path)


def _choose_colors(names: Iterable[str]) -> dict[str, str]:
    """Return a color for each system, reds for this repository."""
    product, others = cycle(_PRODUCT_COLORS), cycle(_OTHER_COLORS)
    return {name: next(product if name.startswith("product") else others) for name in names}


def _styles(systems: list[dict[str, Any]]) -> Iterable[tuple[dict[str, Any], dict[str, Any]]]:
    """Yield each system with the color, label and width of its line."""
    colors = _choose_colors(system["name"] for system in systems)
    for system in systems:
        width = 1.5 if system["is_peer"] else 2.5
        yield system, {"color": colors[system["name"]], "label": system["title"], "linewidth": width}


def _save(figure: Any, axes: Any, path: Path) -> None:
    _remove_clutter(axes)
    axes.legend(loc="center left", bbox_to_anchor=(1.01, 0.5), frameon=False, fontsize=8)
    figure.savefig(path, dpi=_DPI, bbox_inches="tight", metadata={"Software": None})


def _remove_clutter(axes: Any) -> None:
    axes.grid(color="#dddddd", linewidth=0.6)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)


if __name__ == "__main__":
    results, folder = json.loads(Path(sys.argv[1]).read_text()), Path(sys.argv[2])
    if "models" in results:
        draw_tokens(results, folder / "tokens.png")
    else:
        draw_throughput(results, folder / "throughput.png")
        draw_latency(results, folder / "latency.png")
