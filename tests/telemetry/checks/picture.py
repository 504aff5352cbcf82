"""Draws the dashboard from its own queries, for readers who have no Grafana at hand."""

import json
import math
import re
import time
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plot
from matplotlib.axes import Axes
from matplotlib.ticker import FuncFormatter, MaxNLocator

from .dashboard import queries
from .metrics import Prometheus

MOST_COLUMNS = 4
BACKGROUND, PANEL, TEXT, FAINT, GRID = "#111217", "#181b1f", "#ccccdc", "#7b8087", "#2c3235"
COLOURS = ["#73bf69", "#5794f2", "#f2cc0c", "#ff780a", "#f2495c", "#b877d9", "#8ab8ff", "#96d98d"]


def draw(prometheus: Prometheus, dashboard: Path, picture: Path, seconds: int) -> None:
    """Draws the dashboard as it is now, its graphs over the last `seconds`."""
    by_title: dict[str, list[tuple[str, str]]] = {}
    for title, legend, expression in queries(dashboard):
        by_title.setdefault(title, []).append((legend, expression))
    # One moment for all queries, so that their samples fall on the same times.
    now = int(time.time())
    lines = lines_of_panels(json.loads(dashboard.read_text())["panels"])
    plot.rcParams.update({"text.color": TEXT, "font.size": 9.5, "font.family": "DejaVu Sans"})
    heights = [1.1 if panels[0]["type"] == "stat" else 2.9 for _, panels in lines]
    figure = plot.figure(figsize=(17, sum(heights)), facecolor=BACKGROUND, layout="constrained")
    figure.get_layout_engine().set(w_pad=0.12, h_pad=0.06)
    parts = figure.subfigures(len(lines), 1, height_ratios=heights)
    for part, (heading, panels) in zip(parts, lines, strict=True):
        part.set_facecolor(BACKGROUND)
        part.suptitle(heading or " ", x=0.012, ha="left", fontsize=12, fontweight="bold")
        for axis, panel in zip(part.subplots(1, len(panels), squeeze=False).flat, panels, strict=True):
            targets = by_title[panel["title"]]
            if panel["type"] == "stat":
                draw_value(axis, panel, targets[0][1], prometheus)
            else:
                draw_graph(axis, panel, targets, prometheus, now, seconds)
    figure.savefig(picture, dpi=85, facecolor=BACKGROUND)
    print(f"drawn: {picture}")


def lines_of_panels(panels: list[dict]) -> list[tuple[str, list[dict]]]:
    """The panels side by side, each line with the heading of the row that it begins."""
    rows: list[tuple[str, list[dict]]] = []
    for panel in panels:
        if panel["type"] == "row":
            rows.append((panel["title"], []))
        else:
            rows[-1][1].append(panel)
    lines = []
    for heading, members in rows:
        is_values = members[0]["type"] == "stat"
        count = 1 if is_values else math.ceil(len(members) / MOST_COLUMNS)
        length = math.ceil(len(members) / count)
        for begin in range(0, len(members), length):
            lines.append((heading if begin == 0 else "", members[begin : begin + length]))
    return lines


def draw_value(axis: Axes, panel: dict, expression: str, prometheus: Prometheus) -> None:
    axis.set_facecolor(PANEL)
    axis.set_xticks([])
    axis.set_yticks([])
    for spine in axis.spines.values():
        spine.set_visible(False)
    value = with_unit(prometheus.value(expression), panel["fieldConfig"]["defaults"]["unit"])
    axis.text(0.04, 0.72, panel["title"], transform=axis.transAxes, fontsize=9.5)
    axis.text(0.5, 0.3, value, transform=axis.transAxes, fontsize=19, color=COLOURS[0], ha="center", va="center")


def draw_graph(
    axis: Axes, panel: dict, targets: list[tuple[str, str]], prometheus: Prometheus, now: int, seconds: int
) -> None:
    lines = [
        line
        for legend, expression in targets
        for line in series(prometheus, expression, legend, now, seconds)
    ]
    moving = [line for line in lines if any(value > 0 for value in line[2])]
    defaults = panel["fieldConfig"]["defaults"]
    axis.set_facecolor(PANEL)
    axis.set_title(panel["title"], loc="left", fontsize=10.5, color=TEXT)
    axis.set_axisbelow(True)
    axis.grid(color=GRID, linewidth=0.6)
    axis.tick_params(colors=FAINT, length=0)
    axis.yaxis.set_major_locator(MaxNLocator(5))
    axis.yaxis.set_major_formatter(FuncFormatter(lambda value, _: with_unit(value, defaults["unit"])))
    axis.xaxis.set_major_locator(MaxNLocator(5))
    axis.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value / 60:+.0f} min" if value else "now"))
    axis.set_xticks(range(-seconds, 1, 60))
    for spine in axis.spines.values():
        spine.set_visible(False)
    if defaults["custom"]["stacking"]["mode"] == "normal" and moving:
        times = max((line[1] for line in moving), key=len)
        heights = [[dict(zip(line[1], line[2])).get(time, 0) for time in times] for line in moving]
        axis.stackplot(times, heights, labels=[line[0] for line in moving], colors=COLOURS, alpha=0.75)
    else:
        for (label, times, values), colour in zip(moving, COLOURS * 3):
            axis.plot(times, values, label=label, color=colour, linewidth=1.6)
    axis.set_xlim(-seconds, 0)
    if not moving:
        axis.set_ylim(0, 1)
        axis.set_yticks([0])
        axis.text(0.5, 0.5, "0 all the time", transform=axis.transAxes, color=FAINT, ha="center", va="center")
        return
    # Room for the legend.
    rows = math.ceil(len(moving) / 2)
    axis.set_ylim(0, axis.get_ylim()[1] * (1.1 + 0.14 * rows))
    axis.legend(loc="upper left", fontsize=8.5, frameon=False, labelcolor=TEXT, ncols=2, handlelength=1.2)


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
