"""Draws the dashboard's panels from its own queries, for readers who have no Grafana at hand."""

import json
import math
import re
import time
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plot
from matplotlib.axes import Axes
from matplotlib.ticker import FuncFormatter

from .metrics import Prometheus, queries

COLUMNS = 4
BACKGROUND, PANEL, TEXT, GRID = "#111217", "#181b1f", "#ccccdc", "#2c3235"
COLOURS = ["#73bf69", "#5794f2", "#f2cc0c", "#ff780a", "#f2495c", "#b877d9", "#8ab8ff", "#96d98d"]


def draw(prometheus: Prometheus, dashboard: Path, picture: Path, seconds: int) -> None:
    """Draws the last `seconds` of every graph of the dashboard."""
    panels = [panel for panel in json.loads(dashboard.read_text())["panels"] if panel["type"] == "timeseries"]
    by_title: dict[str, list[tuple[str, str]]] = {}
    for title, legend, expression in queries(dashboard):
        by_title.setdefault(title, []).append((legend, expression))
    # One moment for all queries, so that their samples fall on the same times.
    now = int(time.time())
    rows = math.ceil(len(panels) / COLUMNS)
    plot.rcParams.update({"text.color": TEXT, "font.size": 7, "font.family": "DejaVu Sans"})
    figure, grid = plot.subplots(rows, COLUMNS, figsize=(4.2 * COLUMNS, 2.3 * rows), facecolor=BACKGROUND)
    axes = list(grid.flat)
    for axis, panel in zip(axes, panels):
        draw_panel(axis, panel, by_title[panel["title"]], prometheus, now, seconds)
    for axis in axes[len(panels) :]:
        axis.set_axis_off()
    figure.tight_layout(h_pad=1.6)
    figure.savefig(picture, dpi=90, facecolor=BACKGROUND)
    print(f"drawn: {picture}")


def draw_panel(
    axis: Axes, panel: dict, targets: list[tuple[str, str]], prometheus: Prometheus, now: int, seconds: int
) -> None:
    lines = [
        line
        for legend, expression in targets
        for line in series(prometheus, expression, legend, now, seconds)
    ]
    lines = [line for line in lines if any(value > 0 for value in line[2])] or lines
    defaults = panel["fieldConfig"]["defaults"]
    axis.set_facecolor(PANEL)
    axis.set_title(panel["title"], loc="left", fontsize=8, color=TEXT)
    axis.grid(color=GRID, linewidth=0.5)
    axis.tick_params(colors=TEXT, length=0)
    axis.yaxis.set_major_formatter(FuncFormatter(lambda value, _: with_unit(value, defaults["unit"])))
    axis.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:+.0f} s" if value else "now"))
    for spine in axis.spines.values():
        spine.set_visible(False)
    if defaults["custom"]["stacking"]["mode"] == "normal" and lines:
        times = max((line[1] for line in lines), key=len)
        heights = [[dict(zip(line[1], line[2])).get(time, 0) for time in times] for line in lines]
        axis.stackplot(times, heights, labels=[line[0] for line in lines], colors=COLOURS, alpha=0.7)
    else:
        for (label, times, values), colour in zip(lines, COLOURS * 3):
            axis.plot(times, values, label=label, color=colour, linewidth=1)
    axis.set_xlim(-seconds, 0)
    # Room for the legend.
    axis.set_ylim(0, defaults.get("max") or axis.get_ylim()[1] * 1.3)
    if lines:
        axis.legend(loc="upper left", fontsize=6, frameon=False, labelcolor=TEXT, ncols=2)


def series(
    prometheus: Prometheus, expression: str, legend: str, now: int, seconds: int
) -> list[tuple[str, list[float], list[float]]]:
    """Label, times before now, and values of what a query shows."""
    answer = prometheus.api("query_range", query=expression, start=str(now - seconds), end=str(now), step="2")
    lines = []
    for result in answer["result"]:
        label = legend
        for name, value in result["metric"].items():
            label = label.replace("{{" + name + "}}", value)
        # An empty label is none to Prometheus.
        label = re.sub(r"\{\{\w+\}\}", "(none)", label)
        samples = [(float(at) - now, float(value)) for at, value in result["values"]]
        samples = [(at, value) for at, value in samples if math.isfinite(value)]
        if samples:
            times, values = zip(*samples)
            lines.append((label, list(times), list(values)))
    return lines


def with_unit(value: float, unit: str) -> str:
    """As Grafana would write it, roughly."""
    if unit == "percentunit":
        return f"{value:.0%}" if value >= 0.01 or not value else f"{value:.2%}"
    if unit == "s":
        return f"{value:.3g} s" if value >= 1 else f"{value * 1000:.3g} ms"
    for size, prefix in [(1e9, "G"), (1e6, "M"), (1e3, "k")]:
        if value >= size:
            return f"{value / size:.3g} {prefix}{'B/s' if unit == 'Bps' else 'B' if unit == 'bytes' else ''}"
    return f"{value:.3g}" + ("/s" if unit in ("reqps", "ops") else " B/s" if unit == "Bps" else "")
