"""python charts.py results.json FOLDER: draws the charts of a run there; runs where matplotlib is, alone."""

import json
import sys
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")
from matplotlib import pyplot

_COLORS = {
    "ceiling": "#111111",
    "ceiling-int8": "#111111",
    "product-rest": "#d62728",
    "product-grpc": "#ff9896",
    "product-int8-rest": "#9467bd",
    "flask": "#1f77b4",
    "fastapi": "#17becf",
    "mlserver": "#2ca02c",
    "litserve": "#bcbd22",
    "torchserve-stock": "#8c564b",
    "product": "#d62728",
    "product-int8": "#ff9896",
    "fastapi-bf16": "#9edae5",
    "in-process-fp32": "#bbbbbb",
    "in-process-bf16": "#888888",
    "ctranslate2": "#ffbb78",
    "ctranslate2-int8": "#ff7f0e",
    "openvino": "#111111",
}
_SIZE = (7.5, 4.2)  # inches
_DPI = 130
_GRAY = "#7f7f7f"


def throughput(results: dict[str, Any], path: Path) -> None:
    """Requests/s over the number of clients; the ceilings are lines across."""
    figure, axes = pyplot.subplots(figsize=_SIZE)
    places = list(range(len(results["concurrency"])))
    for system in results["systems"]:
        rates = {int(key): value["requests_per_second"] for key, value in system["closed"].items()}
        if not rates:
            continue
        style = {"color": _COLORS.get(system["name"], _GRAY), "label": system["title"]}
        if system["name"].startswith("ceiling"):
            dashes = ":" if system["name"] == "ceiling" else "-."
            axes.axhline(max(rates.values()), linestyle=dashes, linewidth=1.2, **style)
        else:
            width = 1.5 if system["peer"] else 2.5
            found = [rates.get(each) for each in results["concurrency"]]
            axes.plot(places, found, marker="o", linewidth=width, **style)
    axes.set_xticks(places, [str(each) for each in results["concurrency"]])
    axes.set_xlabel("requests at once")
    axes.set_ylabel("requests/s")
    axes.set_ylim(bottom=0)
    _finish(figure, axes, path)


def latency(results: dict[str, Any], path: Path) -> None:
    """p50 as lines and p99 as dots over the offered rate, both axes logarithmic."""
    figure, axes = pyplot.subplots(figsize=_SIZE)
    drawn = False
    for system in results["systems"]:
        points = sorted(
            (each["offered_per_second"], each["p50"], each["p99"]) for each in system["open"] if each["p50"]
        )
        if not points:
            continue
        drawn = True
        rates, middles, tails = zip(*points, strict=True)
        color = _COLORS.get(system["name"], _GRAY)
        width = 1.5 if system["peer"] else 2.5
        axes.plot(
            rates, middles, marker="o", markersize=4, linewidth=width, color=color, label=system["title"]
        )
        axes.plot(rates, tails, marker="_", markersize=9, linestyle=":", linewidth=1, color=color)
    if not drawn:
        pyplot.close(figure)
        return
    axes.set_xscale("log")
    axes.set_yscale("log")
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_formatter("{x:g}")
        axis.set_minor_formatter("")
    axes.set_xticks([1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 2000, 5000])
    low, high = (
        edge(e["offered_per_second"] for s in results["systems"] for e in s["open"]) for edge in (min, max)
    )
    axes.set_xlim(low / 1.2, high * 1.2)
    axes.set_xlabel("requests/s offered (Poisson arrivals)")
    axes.set_ylabel("ms: p50 (line), p99 (dotted)")
    _finish(figure, axes, path)


def tokens(results: dict[str, Any], path: Path) -> None:
    """New tokens/s at 8 at once: for each model a group of bars for each workload, a bar a system."""
    models = results["models"]
    figure, rows = pyplot.subplots(len(models), figsize=(_SIZE[0], 3.2 * len(models)), squeeze=False)
    names = {each["system"]: each["title"] for model in models.values() for each in model["systems"]}
    for axes, (model, found) in zip(rows[:, 0], models.items(), strict=True):
        rates = {
            (each["system"], each["workload"]): each["closed"].get("8", {}).get("tokens_per_second", 0.0)
            for each in found["systems"]
        }
        at, ticks = 0, {}
        for work in results["workloads"]:
            here = [name for name in names if rates.get((name, work))]
            for name in here:
                color = _COLORS.get(name, _GRAY)
                axes.bar(at, rates[name, work], width=0.9, color=color)
                at += 1
            ticks[work] = at - (len(here) + 1) / 2
            at += 1
        axes.set_xticks(list(ticks.values()), [f"({work})" for work in ticks])
        axes.set_ylabel("new tokens/s at 8 at once")
        axes.set_title(model, fontsize=10)
        for name, title in names.items():
            axes.bar(0, 0, color=_COLORS.get(name, _GRAY), label=title)
    for axes in rows[:-1, 0]:
        _tidy(axes)
    _finish(figure, rows[-1, 0], path)


def _finish(figure: Any, axes: Any, path: Path) -> None:
    _tidy(axes)
    axes.legend(loc="center left", bbox_to_anchor=(1.01, 0.5), frameon=False, fontsize=8)
    figure.savefig(path, dpi=_DPI, bbox_inches="tight", metadata={"Software": None})
    pyplot.close(figure)


def _tidy(axes: Any) -> None:
    axes.grid(color="#dddddd", linewidth=0.6)
    axes.set_axisbelow(True)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)


if __name__ == "__main__":
    found = json.loads(Path(sys.argv[1]).read_text())
    if "models" in found:
        tokens(found, Path(sys.argv[2]) / "tokens.png")
    else:
        throughput(found, Path(sys.argv[2]) / "throughput.png")
        latency(found, Path(sys.argv[2]) / "latency.png")
