"""The curves of `flat` as an SVG that reads on light and dark pages."""

from html import escape

from lib.report import rows

WIDTH, LEFT, RIGHT, TOP, PANEL, GAP = 960, 76, 190, 84, 250, 74
# Told apart by colour and by dash, on white and on black.
COLOURS = ["#2f81f7", "#8b949e", "#d1730f", "#a371f7", "#2da44e", "#db61a2", "#bf8700", "#e5534b", "#1b9aaa"]
DASHES = ["", "6 4", "2 3", "10 4 2 4", "1 4", "12 3", "4 2", "8 3 2 3", "3 6"]
STYLE = """text{font:13px system-ui,sans-serif;fill:#24292f}.small{font-size:12px}.title{font-size:16px;font-weight:600}
.axis{stroke:#57606a;fill:none}.grid{stroke:#d0d7de;stroke-width:.6}.hold{fill:#8b949e;opacity:.16}
.back{fill:#ffffff}@media(prefers-color-scheme:dark){text{fill:#e6edf3}.axis{stroke:#8b949e}.grid{stroke:#30363d}.back{fill:#0d1117}}"""


def svg(facts):
    """Two panels over the same time: jobs a second, and CPU a job on a logarithmic scale."""
    curves = {system: runs[-1]["curve"] for system, runs in rows(facts, "flat").items() if runs[-1].get("curve")}
    if not curves:
        raise SystemExit("--svg: there is no run of flat to draw")
    points = [point for curve in curves.values() for point in curve]
    end = max(point["seconds"] for point in points)
    hold = facts["options"]["flat_seconds"] / 4
    fastest = max(point["rate"] for point in points)
    dearest = max(point["cpu_us"] or 1 for point in points)
    height = TOP + 2 * PANEL + GAP + 56
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" role="img">',
        f"<title>Throughput and CPU a job while a snapshot is held</title><style>{STYLE}</style>",
        f'<rect class="back" width="{WIDTH}" height="{height}"/>',
        text(LEFT, 26, "Produce and consume while another connection holds a snapshot", "title"),
        text(LEFT, 45, f"{facts['at']}, {facts['machine']}, Postgres {facts['server']['settings']['server_version'].split()[0]}",
             "small"),
    ]
    across = lambda seconds: LEFT + (WIDTH - LEFT - RIGHT) * seconds / end  # noqa: E731
    for panel, (label, figure, scale) in enumerate((
        ("jobs a second", "rate", linear(fastest)),
        ("CPU µs a job, server and client", "cpu_us", logarithmic(dearest)),
    )):
        top = TOP + panel * (PANEL + GAP)
        parts += frame(top, label, scale, across, end, hold)
        for at, (system, curve) in enumerate(curves.items()):
            parts.append(line(curve, figure, across, scale, top, at, system))
        parts += labels(curves, figure, scale, top)
    return "\n".join(parts + ["</svg>"]) + "\n"


def linear(most):
    """(share of the height for a value, values of the grid)"""
    step = next(unit * 10 ** power for power in range(9) for unit in (1, 2, 5) if most / (unit * 10 ** power) <= 5)
    marks = [step * n for n in range(int(most // step) + 2)]
    return (lambda value: value / marks[-1]), marks


def logarithmic(most):
    from math import ceil, log10
    decades = max(2, ceil(log10(max(most, 10))))
    return (lambda value: max(0.0, log10(max(value, 1)) / decades)), [10 ** power for power in range(decades + 1)]


def frame(top, label, scale, across, end, hold):
    share, marks = scale
    right = WIDTH - RIGHT
    parts = [f'<rect class="hold" x="{across(hold):.1f}" y="{top}" width="{right - across(hold):.1f}" height="{PANEL}"/>',
             text(LEFT, top - 8, label, "small"), text(across(hold) + 6, top + 15, "snapshot held", "small")]
    for mark in marks:
        y = top + PANEL * (1 - share(mark))
        parts.append(f'<path class="grid" d="M{LEFT} {y:.1f}H{right}"/>')
        parts.append(text(LEFT - 8, y + 4, f"{mark:,.0f}", "small", "end"))
    for at in range(5):
        seconds = end * at / 4
        parts.append(text(across(seconds), top + PANEL + 18, f"{seconds:.0f} s", "small", "middle"))
    parts.append(f'<path class="axis" d="M{LEFT} {top}V{top + PANEL}H{right}"/>')
    return parts


def line(curve, figure, across, scale, top, at, system):
    share, _ = scale
    drawn = [(across(point["seconds"]), top + PANEL * (1 - share(point[figure]))) for point in curve
             if point[figure] is not None]
    path = "M" + "L".join(f"{x:.1f} {y:.1f}" for x, y in drawn)
    dash = f' stroke-dasharray="{DASHES[at % len(DASHES)]}"' if at else ""
    return (f'<path d="{path}" fill="none" stroke="{COLOURS[at % len(COLOURS)]}" stroke-width="{3 if not at else 2}"'
            f'{dash}><title>{escape(system)}</title></path>')


def labels(curves, figure, scale, top):
    """The systems' names where their curves end, kept apart."""
    share, _ = scale
    ends = []
    for at, (system, curve) in enumerate(curves.items()):
        last = next((point for point in reversed(curve) if point[figure] is not None), None)
        if last:
            ends.append([top + PANEL * (1 - share(last[figure])), at, system, last[figure]])
    ends.sort()
    for before, after in zip(ends, ends[1:]):
        after[0] = max(after[0], before[0] + 16)
    below = max(0, (ends[-1][0] if ends else 0) - (top + PANEL))
    return [text(WIDTH - RIGHT + 8, y - below + 4, f"{system} {value:,.0f}", "small", colour=COLOURS[at % len(COLOURS)])
            for y, at, system, value in ends]


def text(x, y, words, kind, anchor="start", colour=None):
    style = f' style="fill:{colour};font-weight:600"' if colour else ""
    return f'<text class="{kind}" x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}"{style}>{escape(words)}</text>'
