"""What Prometheus and promtool say of the gateway: PromQL, and the rules."""

import json
import subprocess
import urllib.parse
import urllib.request
from pathlib import Path

from .processes import eventually
from .report import Report, same
from .traffic import HELD


class Prometheus:
    """Asks a Prometheus server."""

    def __init__(self, url: str) -> None:
        self.url = url

    def api(self, path: str, **parameters: str) -> dict:
        query = urllib.parse.urlencode(parameters)
        try:
            with urllib.request.urlopen(f"{self.url}/api/v1/{path}?{query}", timeout=10) as response:
                return json.load(response)["data"]
        except urllib.error.HTTPError as error:
            raise RuntimeError(f"{parameters}: {error.read().decode()}") from error

    def query(self, expression: str) -> list[tuple[dict[str, str], float]]:
        """The samples of an instant query."""
        result = self.api("query", query=expression)["result"]
        return [(sample["metric"], float(sample["value"][1])) for sample in result]

    def value(self, expression: str) -> float:
        """The one value of an expression; zero where it has none."""
        samples = self.query(expression)
        if len(samples) > 1:
            raise AssertionError(f"{expression} has {len(samples)} series")
        return samples[0][1] if samples else 0.0

    def becomes(self, expression: str, expected: float) -> str:
        """Waits for a value: the next scrape brings it."""
        seen = 0.0

        def look() -> bool | None:
            nonlocal seen
            seen = self.value(expression)
            return True if seen == expected else None

        try:
            eventually(expression, look)
        except TimeoutError:
            raise AssertionError(f"{expression} stays {seen}, expected {expected}") from None
        return f"{seen:g}"


def check_live(report: Report, prometheus: Prometheus, held: int) -> None:
    """While traffic runs."""

    def request_rate() -> str:
        rate = prometheus.value("sum(rate(outgate_requests_total[10s]))")
        assert rate > 5, rate
        return f"{rate:.1f} a second"

    def error_share() -> str:
        share = (
            'sum by (reason) (rate(outgate_requests_total{result!="allowed"}[10s]))'
            " / ignoring (reason) group_left sum(rate(outgate_requests_total[10s]))"
        )
        shares = {labels["reason"]: value for labels, value in prometheus.query(share)}
        same(set(shares), {"host_not_allowed", "port_not_allowed", "dns_not_found"}, "the reasons")
        for reason, value in shares.items():
            # One of nine requests of a round each.
            assert 0.05 < value < 0.2, (reason, value)
        return ", ".join(f"{reason} {value:.0%}" for reason, value in sorted(shares.items()))

    def growing_bytes() -> str:
        # None of this rule's tunnels ends before the load does.
        rate = prometheus.value(f'sum(rate(outgate_copied_bytes_total{{rule="{HELD}"}}[10s]))')
        assert rate > 0, rate
        return f"{rate:.0f} bytes a second"

    report.check("PromQL: request rate", request_rate)
    report.check("PromQL: error share by reason", error_share)
    report.check("PromQL: bytes grow while tunnels are open", growing_bytes)
    report.check(
        "PromQL: active tunnels",
        # The least that was seen: others come and go.
        lambda: prometheus.becomes("sum(min_over_time(outgate_tunnels_active[10s]))", held),
    )


def check_totals(report: Report, prometheus: Prometheus, expected: dict[tuple[str, str], int]) -> None:
    """After the traffic: by rule and direction, the counters hold exactly what the clients counted."""
    for (rule, direction), count in expected.items():
        expression = f'sum(outgate_copied_bytes_total{{rule="{rule}", direction="{direction}"}})'
        report.check(
            f"PromQL: bytes of one rule, {direction}",
            lambda expression=expression, count=count: prometheus.becomes(expression, count),
        )
    report.check("PromQL: no tunnel is left", lambda: prometheus.becomes("sum(outgate_tunnels_active)", 0))


def check_scrape(report: Report, prometheus: Prometheus) -> None:
    """Prometheus took the metrics as OpenMetrics: only that tells units."""

    def units() -> str:
        metadata = prometheus.api("metadata")
        same(metadata["outgate_request_duration_seconds"][0]["unit"], "seconds", "the unit")
        # OpenMetrics knows the family; Prometheus itself knows the sample.
        family = metadata.get("outgate_copied_bytes") or metadata["outgate_copied_bytes_total"]
        same(family[0]["unit"], "bytes", "the unit")
        nameless = [name for name, about in metadata.items() if not about[0]["help"]]
        same(nameless, [], "what has no help text")
        return f"{sum(name.startswith('outgate_') for name in metadata)} families of the gateway"

    report.check("Prometheus scrapes OpenMetrics", units)


def check_rules(report: Report, prometheus: Prometheus) -> None:
    """The rules evaluate, and what they record is there."""

    def rules() -> str:
        groups = prometheus.api("rules")["groups"]
        found = [rule for group in groups for rule in group["rules"]]
        for rule in found:
            same((rule["health"], rule.get("lastError")), ("ok", None), rule["name"])
        recorded = {rule["name"] for rule in found if rule["type"] == "recording"}
        for name in recorded:
            assert prometheus.query(name), f"{name} records nothing"
        return f"{len(found)} evaluate, {len(recorded)} record"

    report.check("rules evaluate on real series", rules)


def check_with_promtool(report: Report, root: Path, metrics: str) -> None:
    """promtool's opinion of the metrics, the rules and their tests."""

    def metrics_are_sound() -> str:
        same(promtool("check", "metrics", given=metrics), "", "what promtool says")
        return "nothing to say"

    rules = root / "deploy/prometheus/rules.yaml"
    report.check("promtool check metrics", metrics_are_sound)
    report.check(
        "promtool check rules", lambda: promtool("check", "rules", str(rules)).split("\n")[-1].strip()
    )
    cases = root / "tests/telemetry/rules_test.yaml"
    report.check("promtool test rules", lambda: promtool("test", "rules", str(cases)).split("\n")[-1].strip())


def promtool(*arguments: str, given: str | None = None) -> str:
    """What promtool says; it fails where promtool does."""
    done = subprocess.run(
        ["promtool", *arguments], input=given, capture_output=True, text=True, timeout=120, check=False
    )
    said = (done.stdout + done.stderr).strip()
    assert done.returncode == 0, said
    return said
