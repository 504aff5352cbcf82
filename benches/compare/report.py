"""The table of a comparison."""

from __future__ import annotations

from rows import AT_REST, ROWS

Results = dict[str, dict[str, dict[str, float]]]


def table(results: Results, failures: dict[tuple[str, str], list[str]], peers: list[str]) -> str:
    """One line a row, in Markdown; what failed in some rounds is marked, and told below."""
    lines = [f"| work | {' | '.join(peers)} | wanted | Outgate to Envoy |", "|---" * (len(peers) + 3) + "|"]
    for row in (row for row in ROWS if row in results):
        cells = [cell(results[row].get(peer, {}), failures.get((row, peer))) for peer in peers]
        wanted = f"{ROWS[row].rate} ×, {ROWS[row].cpu} × CPU"
        lines.append(f"| {row}: {ROWS[row].unit}/s (CPU µs) | {' | '.join(cells)} | {wanted} | {verdict(row, results[row])} |")
    for row in (row for row in AT_REST if row in results):
        for figure in AT_REST[row]:
            taken = [results[row].get(peer, {}).get(figure.key) for peer in peers]
            missing = ["failed" if (row, peer) in failures else "–" for peer in peers]
            cells = [
                absent if value is None else f"{value:,.1f}".removesuffix(".0")
                for value, absent in zip(taken, missing)
            ]
            own = results[row].get("outgate", {}).get(figure.key)
            met = "" if own is None else "met" if figure.met(own) else "missed"
            lines.append(f"| {figure.name} | {' | '.join(cells)} | {figure.wanted()} | {met} |")
    told = [f"{row}, {peer}: {'; '.join(sorted(set(why)))}" for (row, peer), why in failures.items()]
    return "\n".join(lines + ([""] + told if told else []))


def cell(figures: dict[str, float], failed: list[str] | None) -> str:
    if not figures:
        return "failed" if failed else "–"
    mark = f", {len(failed)} failed" if failed else ""
    return f"{figures['rate']:,.0f} ({figures['cpu_us']:,.1f}{mark})"


def verdict(row: str, by_peer: dict[str, dict[str, float]]) -> str:
    """Outgate's rate and CPU time to Envoy's, whether that is what is wanted, and who else has a better rate."""
    own, envoy = by_peer.get("outgate"), by_peer.get("envoy")
    if not own or not envoy:
        return ""
    rate, cpu = own["rate"] / envoy["rate"], own["cpu_us"] / max(envoy["cpu_us"], 1e-9)
    met = "met" if rate >= ROWS[row].rate and cpu <= ROWS[row].cpu else "missed"
    ahead = [
        peer for peer, figures in by_peer.items() if peer != "bare" and figures and figures["rate"] > own["rate"]
    ]
    return f"{rate:.2f} ×, {cpu:.2f} × CPU: {met}" + (f"; {', '.join(ahead)} ahead" if ahead else "")
