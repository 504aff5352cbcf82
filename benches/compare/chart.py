"""The chart of a comparison: for every row a bar a proxy, as long as its rate beside the row's best."""

from xml.sax.saxutils import escape

COLOURS = {"outgate": "#d9480f", "envoy": "#868e96", "squid": "#a5b0bb", "smokescreen": "#bcc5cd", "tinyproxy": "#d3d9de", "bare": "#fff0e6"}
LABEL, BAR, FIGURE, STEP, GAP, HEAD, FOOT = 200, 360, 240, 15, 12, 34, 26
STYLE = "text{font:12px system-ui,sans-serif;fill:#212529}.small{font-size:10.5px;fill:#495057}"


def draw(rows: dict, units: dict[str, str], peers: list[str], about: dict[str, str]) -> str:
    """An SVG of medians by row and peer; the row's best rate fills the width, whoever reached it."""
    parts, top = [], HEAD
    for row, by_peer in rows.items():
        best = max(figures["rate"] for figures in by_peer.values() if figures)
        parts.append(f'<text x="8" y="{top + 11}">{escape(row)}</text>')
        for peer in (peer for peer in peers if by_peer.get(peer)):
            parts += bar(peer, by_peer[peer], best, units[row], top)
            top += STEP
        top += GAP
    width, height = LABEL + BAR + FIGURE, top + FOOT
    foot = f"{about['machine']}, Linux {about['kernel']}; load, proxy and origin share the cores"
    return "\n".join([
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" viewBox="0 0 {width} {height}">',
        f"<style>{STYLE}</style>", '<rect width="100%" height="100%" fill="#fff"/>',
        '<text x="8" y="20">Rate, longer is better; in brackets the proxy\'s own CPU time per unit</text>',
        *parts, f'<text class="small" x="8" y="{height - 10}">{escape(foot)}</text>', "</svg>", "",
    ])


def bar(peer: str, figures: dict[str, float], best: float, unit: str, top: int) -> list[str]:
    length = BAR * figures["rate"] / best
    figure = f"{figures['rate']:,.0f} {unit}/s ({figures['cpu_us']:,.0f} µs)"
    return [
        f'<text class="small" x="{LABEL - 8}" y="{top + 10}" text-anchor="end">{escape(peer)}</text>',
        f'<rect x="{LABEL}" y="{top}" width="{length:.1f}" height="{STEP - 3}" fill="{COLOURS[peer]}"/>',
        f'<text class="small" x="{LABEL + length + 6:.1f}" y="{top + 10}">{escape(figure)}</text>',
    ]
