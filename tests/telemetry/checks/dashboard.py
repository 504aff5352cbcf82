"""What the dashboard shows: its numbers of known series, and something of everything in a run."""

import json
import math
import re
import time
from pathlib import Path

from .metrics import Prometheus, promtool
from .peers import THINKING_SECONDS
from .report import Report


def check_run(report: Report, prometheus: Prometheus, dashboard: Path, seconds: int, held: int) -> None:
    """Every query has shown more than nothing in the last `seconds`, and the values on top are what they must be."""
    now = time.time()
    # The least and the most that the traffic makes of them now. One of the seven requests of a round that are let
    # through fails.
    latest = {
        "Requests": (5, 1000),
        "Failed": (0.1, 0.2),
        "Refused": (1, 200),
        "p99 to the response": (THINKING_SECONDS, 10),
        "Tunnels": (held, 2 * held),
    }
    for title, legend, expression in queries(dashboard):

        def shows(title: str = title, expression: str = expression) -> str:
            answer = prometheus.api(
                "query_range", query=expression, start=str(now - seconds), end=str(now), step="1"
            )["result"]
            values = [float(value) for series in answer for _, value in series["values"]]
            # Quantiles of nothing are not a number; for a while, some series have had no traffic.
            most = max(filter(math.isfinite, values), default=0.0)
            assert most > 0, f"nothing but zero: {expression}"
            if title in latest:
                value = prometheus.value(expression)
                least, greatest = latest[title]
                assert least <= value <= greatest, (value, expression)
            return f"{len(answer)} series, up to {most:.3g}"

        report.check(f"dashboard: {title}" + (f", {legend}" if legend else ""), shows)


def queries(dashboard: Path) -> list[tuple[str, str, str]]:
    """Title, legend and expression of every query, its variables set as in a browser."""
    panels = json.loads(dashboard.read_text())["panels"]
    found = []
    for panel in panels:
        for target in panel.get("targets", []):
            expression = target["expr"]
            for variable, value in {"$job": ".+", "$instance": ".+", "$__rate_interval": "20s"}.items():
                expression = expression.replace(variable, value)
            assert "$" not in expression, expression
            found.append((panel["title"], target["legendFormat"], expression))
    return found


def check_numbers(report: Report, dashboard: Path, cases: Path, work: Path) -> None:
    """promtool's tests of the queries, which the cases name as `<Title>` or `<Title: legend>`."""
    by_name = {
        f"{title}: {legend}" if legend else title: expression
        for title, legend, expression in queries(dashboard)
    }

    def numbers() -> str:
        text, count = re.subn(
            r'expr: "?<([^>]+)>"?', lambda found: f"expr: {json.dumps(by_name[found[1]])}", cases.read_text()
        )
        filled = work / cases.name
        filled.write_text(text)
        promtool("test", "rules", str(filled))
        return f"{count} values"

    report.check("promtool test of the dashboard's numbers", numbers)
