"""Starts everything, runs traffic, asks, and counts."""

import argparse
import json
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections import Counter
from pathlib import Path

from . import dashboard, metrics, traces
from .peers import Echo, Origin, Sink
from .processes import Program, answers, eventually, free_port
from .report import Report
from .traffic import ALLOWED, HELD, MESSAGES, MISSING, PAGES, Client, Load
from .trouble import Trouble

# Of scrapes and rule evaluations; the dashboard's rates look back over twenty of them.
INTERVAL = "1s"
# As long as those rates look back, and a few scrapes.
TRAFFIC_SECONDS = 25
# A picture wants more to show.
PICTURED_SECONDS = 240
HELD_TUNNELS = 3
BROKEN_POLICY = "rules: [{ name: pages, hosts: [a b] }]\n"


def main() -> int:
    options = parse()
    report = Report()
    with tempfile.TemporaryDirectory() as work:
        bench = Bench(options, Path(work))
        try:
            bench.start_peers()
            run(options, bench, report)
        finally:
            bench.stop()
    print(f"{report.passed} passed, {report.failed} failed")
    return 1 if report.failed else 0


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="tests/telemetry/run")
    parser.add_argument("--root", type=Path, required=True, help=argparse.SUPPRESS)
    parser.add_argument("--collector", type=Path, required=True, help=argparse.SUPPRESS)
    parser.add_argument("--picture", type=Path, help="also draw the dashboard")
    parser.add_argument("outgate", type=Path, nargs="?")
    options = parser.parse_args()
    built = [options.root / "target" / profile / "outgate" for profile in ["release", "debug"]]
    candidates = [options.outgate] if options.outgate else built
    found = [path for path in candidates if path.is_file()]
    if not found:
        sys.exit(f"no gateway at {', '.join(map(str, candidates))}: cargo build first")
    options.outgate = found[0].resolve()
    return options


def run(options: argparse.Namespace, bench: "Bench", report: Report) -> None:
    gates = {protocol: bench.start_gate(protocol) for protocol in ["grpc", "http/protobuf"]}
    troubled = bench.start_gate_in_trouble()
    prometheus = bench.start_prometheus([gate.admin for gate in [*gates.values(), troubled]])
    panels = options.root / "deploy/grafana/outgate.json"
    clients = [bench.client_of(gate) for gate in gates.values()]
    for client in clients:
        client.hold(HELD_TUNNELS)
    load = Load(clients, pause_seconds=0.3)
    seconds = PICTURED_SECONDS if options.picture else TRAFFIC_SECONDS
    trouble = Trouble(troubled, bench.client_of(troubled), seconds)
    try:
        change_policy(report, bench, prometheus, seconds, len(gates))
        metrics.check_live(report, prometheus, HELD_TUNNELS * len(clients))
        metrics.check_scrape(report, prometheus)
        metrics.check_rules(report, prometheus)
        dashboard.check_run(report, prometheus, panels, seconds, HELD_TUNNELS * len(clients))
        if options.picture:
            from . import picture

            picture.draw(prometheus, panels, options.picture, PICTURED_SECONDS)
    finally:
        load.stop()
        trouble.join()
    for client in clients:
        client.release()
    for (protocol, gate), client in zip(gates.items(), clients, strict=True):
        traces.check_traces(report, protocol, client, bench.sink, bench.origin)
    counted = sum((client.counted for client in clients), Counter())
    directions = [(PAGES, "upstream_to_client")]
    directions += [
        (rule, way) for rule in [MESSAGES, HELD] for way in ["client_to_upstream", "upstream_to_client"]
    ]
    metrics.check_totals(report, prometheus, {(rule, way): counted[rule] for rule, way in directions})
    metrics.check_with_promtool(report, options.root, gates["grpc"].metrics())
    dashboard.check_numbers(report, panels, options.root / "tests/telemetry/dashboard_test.yaml", bench.work)
    for protocol, gate in gates.items():
        report.check(f"{protocol}: no span was dropped", gate.has_dropped_nothing)


def change_policy(
    report: Report, bench: "Bench", prometheus: metrics.Prometheus, seconds: float, gates: int
) -> None:
    """Lets traffic run for so long, and has the gateways read a better policy, a broken one, and a sound one."""
    begun = time.monotonic()
    changes = [
        ("another rule", 0.3, bench.policy(more=["later"]), "ok", 1),
        ("a broken file", 0.5, BROKEN_POLICY, "error", 1),
        ("the first rules again", 0.7, bench.policy(), "ok", 2),
    ]
    for what, share, policy, result, times in changes:
        time.sleep(max(0.0, begun + share * seconds - time.monotonic()))
        bench.policy_file.write_text(policy)
        expression = f'sum(outgate_policy_reloads_total{{result="{result}"}})'
        report.check(
            f"PromQL: policy reload, {what}",
            lambda expression=expression, times=times: prometheus.becomes(expression, times * gates),
        )
    report.check(
        "PromQL: policies put in force", lambda: prometheus.becomes("min(outgate_policy_generation)", 3)
    )
    time.sleep(max(0.0, begun + seconds - time.monotonic()))


class Gate:
    """A running gateway."""

    def __init__(self, program: Program) -> None:
        self.program = program
        self.proxy = self.listens("proxy")
        self.admin = self.listens("admin")

    def listens(self, listener: str) -> str:
        pattern = r'^\{.*"listening".*"listener":"%s".*\}$' % listener
        line = self.program.wait_for("(?m)" + pattern).group()
        return json.loads(line)["address"]

    def metrics(self) -> str:
        with urllib.request.urlopen(f"http://{self.admin}/metrics", timeout=10) as response:
            return response.read().decode()

    def has_dropped_nothing(self) -> None:
        assert "\noutgate_spans_dropped_total 0\n" in self.metrics()


class Bench:
    """Everything the gateways talk to, and the gateways."""

    def __init__(self, options: argparse.Namespace, work: Path) -> None:
        self.options, self.work = options, work
        self.programs: list[Program] = []
        self.origin, self.echo, self.held_echo, self.sink = Origin(), Echo(), Echo(), Sink()
        self.ports = {"grpc": free_port(), "http/protobuf": free_port()}

    def start_peers(self) -> None:
        names = self.start(
            "names",
            [sys.executable, "-u", str(self.options.root / "tests/clients/services/dns_responder.py")],
        )
        self.dns = names.wait_for(r"dns=(\d+)").group(1)
        self.start_collector()
        self.policy_file = self.work / "policy.yaml"
        self.policy_file.write_text(self.policy())

    def start(self, name: str, command: list[str], environment: dict[str, str] | None = None) -> Program:
        program = Program(self.work / f"{name}.log", command, environment or {})
        self.programs.append(program)
        return program

    def start_collector(self) -> None:
        certificate, key = self.make_certificate()
        protocols = {
            "grpc": {
                "endpoint": f"127.0.0.1:{self.ports['grpc']}",
                "tls": {"cert_file": certificate, "key_file": key},
            },
            "http": {"endpoint": f"127.0.0.1:{self.ports['http/protobuf']}"},
        }
        config = {
            "receivers": {"otlp": {"protocols": protocols}},
            "exporters": {
                "otlphttp": {"endpoint": f"http://127.0.0.1:{self.sink.server_port}", "encoding": "json"}
            },
            "service": {
                "pipelines": {"traces": {"receivers": ["otlp"], "exporters": ["otlphttp"]}},
                "telemetry": {"metrics": {"level": "none"}},
            },
        }
        # JSON is YAML.
        path = self.work / "collector.yaml"
        path.write_text(json.dumps(config))
        collector = self.start("collector", [str(self.options.collector), "--config", f"file:{path}"])
        collector.wait_for("Everything is ready")

    def make_certificate(self) -> tuple[str, str]:
        """For the collector, which is spoken to over TLS on one of its protocols."""
        certificate, key = str(self.work / "collector.pem"), str(self.work / "collector.key")
        subprocess.run(
            ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-noenc"]
            + ["-days", "2", "-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost"]
            + ["-addext", "basicConstraints=critical,CA:FALSE", "-keyout", key, "-out", certificate],
            check=True,
            capture_output=True,
        )
        return certificate, key

    def policy(self, more: list[str] = []) -> str:
        """A rule for each service, one for names that are not there, and more."""
        ports = {PAGES: self.origin, MESSAGES: self.echo, HELD: self.held_echo}
        rules = [
            {"name": name, "hosts": [ALLOWED], "ports": [peer.server_address[1]], "addresses": ["127.0.0.0/8"]}
            for name, peer in ports.items()
        ] + [
            {"name": "missing", "hosts": [MISSING], "ports": ["*"]},
        ]
        return json.dumps({"rules": rules + [{"name": name, "hosts": [f"{name}.test"]} for name in more]})

    def start_gate(self, protocol: str) -> Gate:
        # A proxy that is not there: an exporter that heeds it exports nothing.
        nowhere = "http://127.0.0.1:9"
        name = protocol.replace("/", "-")
        return Gate(
            self.start(
                name,
                [str(self.options.outgate)],
                self.settings()
                | {
                    "OUTGATE_POLICY_FILE": str(self.policy_file),
                    "OTEL_EXPORTER_OTLP_ENDPOINT": f"{'https' if protocol == 'grpc' else 'http'}://localhost:{self.ports[protocol]}",
                    "OTEL_EXPORTER_OTLP_CERTIFICATE": str(self.work / "collector.pem"),
                    "OTEL_EXPORTER_OTLP_COMPRESSION": "gzip",
                    "OTEL_EXPORTER_OTLP_PROTOCOL": protocol,
                    "OTEL_SERVICE_NAME": f"gate-{protocol}",
                    "OTEL_RESOURCE_ATTRIBUTES": "deployment.environment.name=test",
                    "OTEL_BSP_SCHEDULE_DELAY": "200",
                    "HTTP_PROXY": nowhere,
                    "http_proxy": nowhere,
                    "HTTPS_PROXY": nowhere,
                    "ALL_PROXY": nowhere,
                },
            )
        )

    def settings(self) -> dict[str, str]:
        """What all gateways have."""
        return {
            "OUTGATE_LISTEN": "127.0.0.1:0",
            "OUTGATE_ADMIN_LISTEN": "127.0.0.1:0",
            "OUTGATE_INSPECT_LISTEN": "off",
            "OUTGATE_LOG_FORMAT": "json",
            "OUTGATE_DNS_SERVERS": f"127.0.0.1:{self.dns}",
            "OUTGATE_DRAIN_DELAY": "0s",
        }

    def start_gate_in_trouble(self) -> Gate:
        settings = self.settings() | Trouble.settings(nowhere=f"http://127.0.0.1:{free_port()}")
        return Gate(self.start("trouble", Trouble.command(self.options.outgate), settings))

    def client_of(self, gate: Gate) -> Client:
        ports = [peer.server_address[1] for peer in [self.origin, self.echo, self.held_echo]]
        return Client(gate.proxy, *ports)

    def start_prometheus(self, targets: list[str]) -> metrics.Prometheus:
        config = {
            "global": {
                "scrape_interval": INTERVAL,
                "scrape_timeout": INTERVAL,
                "evaluation_interval": INTERVAL,
            },
            "rule_files": [str(self.options.root / "deploy/prometheus/rules.yaml")],
            "scrape_configs": [
                {
                    "job_name": "outgate",
                    "static_configs": [
                        {"targets": [target], "labels": {"instance": f"outgate-{number}"}}
                        for number, target in enumerate(targets)
                    ],
                }
            ],
        }
        path = self.work / "prometheus.yaml"
        path.write_text(json.dumps(config))
        address = f"127.0.0.1:{free_port()}"
        self.start(
            "prometheus",
            [
                "prometheus",
                f"--config.file={path}",
                f"--storage.tsdb.path={self.work / 'prometheus'}",
                f"--web.listen-address={address}",
            ],
        )
        eventually("Prometheus is ready", lambda: answers(f"http://{address}/-/ready"))
        return metrics.Prometheus(f"http://{address}")

    def stop(self) -> None:
        for program in reversed(self.programs):
            program.stop()


if __name__ == "__main__":
    sys.exit(main())
