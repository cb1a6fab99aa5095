"""Figures as lines and as Markdown."""

from statistics import median

from lib.systems import SYSTEMS

# Shown, but no job queues: never the best peer.
NO_PEERS = {system.name for system in SYSTEMS if system.no_peer} | {"divvy"}
KEEP = {system.name for system in SYSTEMS if system.keeps}
TITLES = {
    "drain": "Drain: {tasks:,} waiting jobs, one worker process, best settings",
    "drain10": "Drain with at most 10 jobs in flight: {tasks:,} waiting jobs, one worker process",
}


def rate(run):
    return run["jobs"] / run["seconds"]


def cpu(run):
    return run["server_us"] + run["client_us"]


def quantile(values, share):
    values = sorted(values)
    return values[min(len(values) - 1, int(share * len(values)))]


def line(what, run):
    """One run, for the terminal."""
    if what == "enqueue":
        bulk, single = run["bulk"], run["single"]
        return f"{rate(bulk):>9,.0f}/s in batches, {rate(single):>7,.0f}/s single, {cpu(bulk):.1f} and {cpu(single):.0f} µs CPU"
    if what == "latency":
        call = run["from_call_ms"]
        return f"p50 {quantile(call, .5):.2f} ms, p99 {quantile(call, .99):.2f} ms from the insert's call"
    text = f"{rate(run):>9,.0f}/s, {cpu(run):.1f} µs CPU a job"
    if what == "flat":
        free, held = before_and_after(run)
        text += f"; {free[0]:,.0f}/s and {free[1]:.0f} µs before the hold, {held[0]:,.0f}/s and {held[1]:.0f} µs at its end"
    if run["other_cpu_s"] > 0.05 * cpu(run) * run["jobs"] / 1e6:
        text += f" (other databases used {run['other_cpu_s']:.1f} s of CPU meanwhile)"
    return text


def before_and_after(run):
    """(rate, CPU a job) before the snapshot was held, and in the last points under it."""
    # A point whose interval holds the beginning counts for neither; the first one warms up.
    free = [point for point in run["curve"] if not point["held"]]
    held = [point for point in run["curve"] if point["held"]][-2:]

    def both(points):
        points = [point for point in points if point["cpu_us"] is not None]
        if not points:
            return 0.0, float("nan")
        return median(point["rate"] for point in points), median(point["cpu_us"] for point in points)
    return both(free[1:] or free), both(held)


def markdown(facts):
    """Everything that was measured."""
    server, options = facts["server"]["settings"], facts["options"]
    parts = [
        f"Measured {facts['at']} at {facts['commit']}: {facts['machine']}; "
        + ", ".join(f"{name} {value}" for name, value in server.items())
        + f". Medians of {options['rounds']} interleaved rounds; payload 100 bytes; CPU is server + client, per job.",
    ]
    for what in ("drain", "drain10"):
        if rows(facts, what):
            parts += [f"### {TITLES[what].format(**options)}", drains(facts, what)]
    for what, title, table in (
        ("enqueue", f"Enqueue: {options['tasks']:,} jobs by one client in batches of 1,000; single commits by 8 clients",
         enqueues),
        ("latency", f"Idle pick-up: {options['latency_tasks']} single inserts, 20 ms apart", latencies),
        ("flat", f"Produce and consume for {options['flat_seconds']} s, a snapshot held after a quarter", flats),
    ):
        if rows(facts, what):
            parts += [f"### {title}", table(facts)]
    parts += ["### Who", who(facts)]
    if facts["skipped"]:
        parts += ["### Skipped", "\n".join(f"- {name}: {why}" for name, why in facts["skipped"].items())]
    return "\n\n".join(parts) + "\n"


def rows(facts, what):
    """The runs of each system, in the table's order."""
    found = {}
    for run in facts["runs"]:
        if run["what"] == what:
            found.setdefault(run["system"], []).append(run)
    return found


def of_round(runs, figure, other):
    """The median of the ratios to another system's run of the same round."""
    theirs = {run["round"]: figure(run) for run in other or []}
    ratios = [figure(run) / theirs[run["round"]] for run in runs if theirs.get(run["round"])]
    return f"{median(ratios):.2f}" if ratios else "–"


def table(heads, lines):
    align = ["---"] + ["---:"] * (len(heads) - 1)
    return "\n".join("| " + " | ".join(cells) + " |" for cells in [heads, align, *lines])


def name(system):
    return f"**{system}**" if system == "divvy" else system


def drains(facts, what):
    found = rows(facts, what)
    lines = []
    for system, runs in found.items():
        lines.append([
            name(system), f"{median(map(rate, runs)):,.0f}", f"{min(map(rate, runs)):,.0f}–{max(map(rate, runs)):,.0f}",
            of_round(runs, rate, found.get("divvy")), of_round(runs, rate, found.get("floor")),
            f"{median(run['server_us'] for run in runs):.1f} + {median(run['client_us'] for run in runs):.1f}",
        ])
    text = table(["system", "jobs/s", "range", "to divvy", "to the floor", "CPU µs"], lines)
    for who, peers in (
        ("the fastest of the others", set(found) - NO_PEERS),
        ("the fastest that keeps history", set(found) & KEEP - NO_PEERS),
    ):
        if "divvy" in found and peers:
            best = max(peers, key=lambda system: median(map(rate, found[system])))
            text += f"\n\ndivvy is {of_round(found['divvy'], rate, found[best])} × {best}, {who}."
    return text


def enqueues(facts):
    found = rows(facts, "enqueue")

    def part(which, figure):
        return lambda run: figure(run[which])
    lines = []
    for system, runs in found.items():
        cells = [name(system)]
        for which in ("bulk", "single"):
            cells += [f"{median(map(part(which, rate), runs)):,.0f}",
                      of_round(runs, part(which, rate), found.get("divvy")),
                      of_round(runs, part(which, rate), found.get("floor")),
                      f"{median(map(part(which, cpu), runs)):.1f}"]
        lines.append(cells)
    return table(["system", "batches/s", "to divvy", "to the floor", "CPU µs",
                  "single/s", "to divvy", "to the floor", "CPU µs"], lines)


def latencies(facts):
    lines = []
    for system, runs in rows(facts, "latency").items():
        cells = [name(system)]
        for which in ("from_commit_ms", "from_call_ms"):
            cells += [f"{median(quantile(run[which], share) for run in runs):.2f}" for share in (0.5, 0.99)]
        lines.append(cells)
    return table(["system", "insert has returned → handler, p50 ms", "p99 ms",
                  "insert is called → handler, p50 ms", "p99 ms"], lines)


def flats(facts):
    lines = []
    for system, runs in rows(facts, "flat").items():
        both = [before_and_after(run) for run in runs]
        free, held = ([median(each[at][figure] for each in both) for figure in (0, 1)] for at in (0, 1))
        lines.append([name(system), f"{free[0]:,.0f}", f"{held[0]:,.0f}", f"{held[0] / free[0]:.2f}" if free[0] else "–",
                      f"{free[1]:.1f}", f"{held[1]:.1f}", f"{held[1] / free[1]:.2f}"])
    return table(["system", "jobs/s before", "at the end of the hold", "ratio", "CPU µs before", "at the end", "ratio"], lines)


def who(facts):
    settings = {}
    for run in facts["runs"]:
        settings.setdefault((run["system"], "drain10" == run["what"]), run["settings"])
    lines = []
    for system, version in facts["versions"].items():
        used = settings.get((system, False)) or settings.get((system, True))
        if used:
            lines.append([name(system), version, used, facts["contracts"][system]])
    return table(["system", "version", "settings", "contract"], lines).replace("---:", "---")
