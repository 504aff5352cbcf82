"""What is measured: a row's work, and the two rows about a proxy at rest."""

from __future__ import annotations

import dataclasses
import statistics
import subprocess
import time

from peers import LOAD, RESERVED, Failed, Proxy

Sample = dict[str, float]


@dataclasses.dataclass(frozen=True)
class Row:
    """One kind of work under load."""

    command: str
    connections: int
    unit: str
    # At least so many times Envoy's rate, at no more than such a share of its CPU time.
    rate: float
    cpu: float
    size: int = 0


ROWS = {
    "tunnel": Row("connect", 16, "tunnel", 1.5, 0.5),
    "ping-pong": Row("ping", 16, "message", 1.2, 0.78),
    "bulk-down-4": Row("down", 4, "MB", 2.0, 0.5),
    "bulk-down-64": Row("down", 64, "MB", 2.0, 0.5),
    "bulk-up-4": Row("up", 4, "MB", 1.2, 0.6),
    "bulk-up-64": Row("up", 64, "MB", 1.2, 0.6),
    "get-1k": Row("get", 32, "request", 1.6, 0.5, size=1024),
    "get-64k": Row("get", 32, "request", 1.25, 0.7, size=64 * 1024),
    "get-bulk": Row("get", 8, "MB", 1.3, 0.65, size=64 * 1024 * 1024),
}


@dataclasses.dataclass(frozen=True)
class AtRest:
    """A figure of a proxy at rest, and how little or how much is wanted."""

    name: str
    key: str
    under: float | None = None
    all_of: int | None = None

    def wanted(self) -> str:
        return f"under {self.under:g}" if self.under else f"all {self.all_of:,}"

    def met(self, figure: float) -> bool:
        return figure < self.under if self.under else figure >= self.all_of


IDLE, MANY = 5_000, 9_900
AT_REST = {
    "memory": [
        AtRest("started, MB", "started_mb", under=10),
        AtRest("idle tunnel, KB", "per_tunnel_kb", under=5),
        AtRest("start to first answer, ms", "ready_ms", under=100),
    ],
    "held": [
        AtRest(f"tunnels held with {RESERVED:,} descriptors", "held", all_of=MANY),
        AtRest("of these answering", "answering", all_of=MANY),
    ],
}


def under_load(row: Row, proxy: Proxy, origin: int, seconds: float) -> Sample:
    arguments = [str(LOAD), row.command, f"127.0.0.1:{proxy.port}", str(origin), str(row.connections)]
    # A short turn first, so that caches and pools are what they are in the long run.
    run_load([*arguments, "0.3", str(row.size)], 60)
    before = proxy.cpu_seconds()
    units, took = run_load([*arguments, str(seconds), str(row.size)], seconds + 60)
    cpu = proxy.cpu_seconds() - before
    if row.unit == "MB":
        units /= 1e6
    if units < 1:
        raise Failed("no work was done")
    return {"rate": units / took, "cpu_us": cpu * 1e6 / units}


def run_load(command: list[str], patience: float) -> tuple[float, float]:
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=patience)
    except subprocess.TimeoutExpired:
        raise Failed("the load did not end") from None
    if done.returncode != 0:
        raise Failed((done.stderr.strip().splitlines() or ["the load failed"])[-1])
    units, took = done.stdout.split()
    return float(units), float(took)


def at_rest(row: str, proxy: Proxy, origin: int) -> Sample:
    tunnels = MANY if row == "held" else IDLE
    before = proxy.pss_kb()
    load = subprocess.Popen(
        [str(LOAD), "idle", f"127.0.0.1:{proxy.port}", str(origin), str(tunnels), "0"],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    )
    try:
        opened = int(load.stdout.readline() or 0)
        # What was needed only to open them is given back by then, where it is given back.
        time.sleep(1)
        after = proxy.pss_kb()
        answering, _ = load.communicate("\n", timeout=120)
    except subprocess.TimeoutExpired:
        raise Failed("idle tunnels do not answer") from None
    finally:
        load.kill()
        load.wait()
    if row == "held":
        return {"held": opened, "answering": int(answering or 0)}
    per_tunnel = (after - before) / max(opened, 1)
    return {"started_mb": before / 1024, "per_tunnel_kb": per_tunnel, "ready_ms": proxy.ready_ms}


def medians(samples: list[Sample]) -> Sample:
    return {key: statistics.median(sample[key] for sample in samples) for key in samples[0]} if samples else {}
