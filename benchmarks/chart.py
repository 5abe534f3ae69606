"""How a race is shown: a line on the terminal, a table in Markdown, bars in SVG."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple
from xml.sax.saxutils import escape


class Ratio(NamedTuple):
    """Of one client to a peer, paired by rounds."""

    median: float
    least: float
    greatest: float

    def __str__(self) -> str:
        return f"{self.median:.2f} [{self.least:.2f}, {self.greatest:.2f}]"


class Row(NamedTuple):
    """One client, for one set over one wire: medians of its rounds, and ratios to the peers that need least of each."""

    set: str
    wire: str
    client: str
    rounds: int
    wall_s: float
    cpu_s: float
    peak_mib: float
    server_cpu_s: float
    wall_ratio: Ratio | None
    cpu_ratio: Ratio | None


_WIRES = {"tcp": "plain HTTP", "tls": "TLS", "far": "30 ms away"}
_COLOURS = {
    "lading": "#0b7285",
    "lading/openssl": "#66d9e8",
    "lading/rustls": "#22b8cf",
    "s5cmd": "#adb5bd",
    "rclone": "#868e96",
    "kserve-storage": "#495057",
    "floor": "#e9ecef",
}
_BAR, _GAP, _LEFT, _WIDTH, _MOST = 14, 26, 150, 760, 4.0


def line(row: Row) -> str:
    """One result, as the race prints it."""
    return (
        f"{row.set:5} {row.wire:4} {row.client:15} wall {row.wall_s:7.2f} s  cpu {row.cpu_s:7.2f} s  "
        f"server {row.server_cpu_s:6.2f} s  peak {row.peak_mib:6.0f} MiB  wall × {row.wall_ratio}  cpu × {row.cpu_ratio}"
    )


def table(rows: Sequence[Row], about: str, sets: Mapping[str, str]) -> str:
    """All results as a page."""
    lines = [
        "# Race",
        "",
        f"{about}.",
        "",
        "Medians. A ratio is to the peer that is best in that figure, of the same round: median [least, greatest]; less is better. "
        "TLS is 1.3 with AES-128-GCM for all. `lading` chooses who does TLS by itself; `lading/openssl` and `lading/rustls` are told "
        "by `LADING_TLS`. `floor` receives and writes, and does nothing else. The server's CPU seconds are what it needed for the "
        "client in this row: where they are near the wall time, the client waited for it. Sets: "
        + "; ".join(f"`{name}` is {what}" for name, what in sets.items())
        + ".",
        "",
        "| set | wire | client | rounds | wall s | CPU s | server CPU s | peak MiB | wall × | CPU × |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    lines += [
        f"| {row.set} | {_WIRES[row.wire]} | {f'**{row.client}**' if row.client == 'lading' else row.client} | {row.rounds} "
        f"| {row.wall_s:.2f} | {row.cpu_s:.2f} | {row.server_cpu_s:.2f} | {row.peak_mib:.0f} "
        f"| {row.wall_ratio or ''} | {row.cpu_ratio or ''} |"
        for row in rows
    ]
    return "\n".join(lines) + "\n"


def svg(rows: Sequence[Row]) -> str:
    """Bars of wall time relative to the fastest peer, a group for each set and wire."""
    groups: dict[tuple[str, str], list[Row]] = {}
    for row in rows:
        groups.setdefault((row.set, row.wire), []).append(row)
    scale = (_WIDTH - _LEFT - 190) / _MOST
    parts: list[str] = []
    y = 40.0
    for (name, wire), found in groups.items():
        parts.append(_text(10, y + 12, f"{name}, {_WIRES[wire]}", "start", bold=True))
        for row in found:
            ratio = row.wall_ratio.median if row.wall_ratio else 0.0
            width = min(ratio, _MOST) * scale
            colour = _COLOURS.get(row.client, "#ced4da")
            parts.append(f'<rect x="{_LEFT}" y="{y:.0f}" width="{width:.1f}" height="{_BAR - 2}" fill="{colour}"/>')
            more = " →" if ratio > _MOST else ""
            label = f"{row.client} {row.wall_s:.2f} s, {row.peak_mib:.0f} MiB{more}"
            parts.append(_text(_LEFT + width + 5, y + 10, label, "start"))
            y += _BAR
        y += _GAP - _BAR
    one = _LEFT + scale
    head = _text(10, 20, "Wall time relative to the fastest peer (line), one CPU; less is better", "start", bold=True)
    rule = f'<line x1="{one:.1f}" y1="32" x2="{one:.1f}" y2="{y:.0f}" stroke="#c92a2a" stroke-dasharray="3 3"/>'
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {y:.0f}" font-family="sans-serif" font-size="11">'
        f'<rect width="100%" height="100%" fill="#fff"/>{head}{"".join(parts)}{rule}</svg>\n'
    )


def _text(x: float, y: float, text: str, anchor: str, *, bold: bool = False) -> str:
    weight = ' font-weight="bold"' if bold else ""
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}"{weight}>{escape(text)}</text>'
