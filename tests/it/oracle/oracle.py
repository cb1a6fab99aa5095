#!/usr/bin/env python3
"""The second opinion on cron moments: croniter, zoneinfo, and the rule of docs/scheduling.md written once more.

    python3 -m venv target/oracle
    target/oracle/bin/pip install -r tests/it/oracle/requirements.txt
    target/oracle/bin/python tests/it/oracle/oracle.py make            # writes moments.txt.gz
    target/oracle/bin/python tests/it/oracle/oracle.py show ZONE EXPRESSION GAP FOLD SPAN

croniter is asked for local times only and never sees a zone. Which instants they are is decided here, over the whole
table of the zone's changes, and not by looking for "the next one" as the program under test does. What croniter cannot
say (LW, L-3, L-3W) is a look at the calendar. Nothing here was translated from Rust.
"""

import calendar
import gzip
import importlib.metadata
import multiprocessing
import re
import sys
import zoneinfo
from datetime import datetime, timedelta, timezone
from functools import cache
from pathlib import Path

import tzdata
from croniter import CroniterBadDateError, croniter

zoneinfo.reset_tzpath(to=[])  # the tzdata package and not what this machine has

HERE = Path(__file__).parent
BEGIN = int(datetime(2015, 1, 1, tzinfo=timezone.utc).timestamp())
END = int(datetime(2036, 1, 1, tzinfo=timezone.utc).timestamp())
# Looked at in every zone, as if its clock changed there: two leap days and a turn of the year.
PLAIN = [
    int(datetime(*day, tzinfo=timezone.utc).timestamp())
    for day in [(2016, 2, 29, 0), (2024, 12, 31, 12), (2032, 2, 29, 0)]
]
POLICIES = [(gap, fold) for gap in ("shift", "skip") for fold in ("first", "last", "both")]
SPANS = {"5m": 300, "90m": 5_400, "5h": 18_000, "2d": 172_800, "all": None}
# What `cargo test` compares one by one is at least this many moments.
FIXED_LEAST = 50_000
# A pair of zone and expression that is compared one by one has at most so many, those of all zones aside.
FIXED_PAIR_MOST = 320
# Compared one by one in every zone, so through every change: a rule of fixed times, and one of elapsed time.
IN_ALL_ZONES = ["*/30 0-4,21-23 * * *", "* 0-4 * * *"]
# The zone whose name stands for all that share its history, where the shortest would not be the known one.
KNOWN = """Europe/Berlin Europe/London Europe/Dublin Europe/Lisbon Europe/Athens Europe/Chisinau Europe/Istanbul
    America/New_York America/Chicago America/Denver America/Los_Angeles America/Anchorage America/Halifax America/St_Johns
    America/Sao_Paulo America/Santiago America/Havana America/Nuuk America/Mexico_City America/Tijuana America/Adak
    Australia/Sydney Australia/Adelaide Australia/Lord_Howe Pacific/Auckland Pacific/Easter Pacific/Chatham
    America/Mazatlan America/Whitehorse America/Port-au-Prince Asia/Ulaanbaatar Pacific/Norfolk
    Africa/Casablanca Africa/Cairo Asia/Jerusalem Asia/Beirut Asia/Tehran Asia/Gaza UTC""".split()
NAMES = ["sun", "mon", "tue", "wed", "thu", "fri", "sat"]
NICK = {
    "@yearly": "0 0 1 1 *", "@annually": "0 0 1 1 *", "@monthly": "0 0 1 * *", "@weekly": "0 0 * * 0",
    "@daily": "0 0 * * *", "@midnight": "0 0 * * *", "@hourly": "0 * * * *",
}


# --- zones ------------------------------------------------------------------------------------------------------

@cache
def zone(name):
    return zoneinfo.ZoneInfo(name)


def offset(name, at):
    return int(datetime.fromtimestamp(at, zone(name)).utcoffset().total_seconds())


@cache
def changes(name):
    """(instant, offset before, offset after) of each change of the clock from 2015 to 2035."""
    found, at, before = [], BEGIN, offset(name, BEGIN)
    while at < END:
        after = offset(name, at + 21_600)
        if after != before:
            low, high = at, at + 21_600
            while high - low > 1:
                middle = (low + high) // 2
                low, high = (low, middle) if offset(name, middle) != before else (middle, high)
            found.append((high, before, after))
            before = after
        at += 21_600
    return tuple(found)


def zones():
    """One zone for each history that any zone of the data has, and two whose offsets are no whole hours."""
    by_history = {}
    for name in sorted(zoneinfo.available_timezones()):
        by_history.setdefault(changes(name), []).append(name)
    def rank(name):
        return (name not in KNOWN, "/" not in name, name.startswith("Etc"), len(name), name)
    chosen = [min(names, key=rank) for names in by_history.values()]
    return sorted(set(chosen) | {"UTC", "Asia/Kolkata", "Asia/Kathmandu"})


# --- the rule ---------------------------------------------------------------------------------------------------

def instants(local, name, gap, fold):
    """The instants of a local time: what docs/scheduling.md says about gaps and folds."""
    found = set()
    for pass_ in (0, 1):
        at = int(local.replace(tzinfo=zone(name), fold=pass_).timestamp())
        if datetime.fromtimestamp(at, zone(name)).replace(tzinfo=None) == local:
            found.add(at)
    if not found:
        if gap == "skip":
            return []
        seconds = calendar.timegm(local.timetuple())
        return [at for at, before, after in changes(name) if at + before <= seconds < at + after]
    if len(found) == 2 and fold != "both":
        return [min(found) if fold == "first" else max(found)]
    return sorted(found)


def local_times_shown(name, low, high):
    """The first and the last local time that the zone's clock shows, or jumps over, from low to high."""
    seen = [low + offset(name, low), high + offset(name, high)]
    for at, before, after in changes(name):
        if low < at <= high:
            seen += [at + before, at + after]
    epoch = datetime(1970, 1, 1)
    return epoch + timedelta(seconds=min(seen)), epoch + timedelta(seconds=max(seen))


# --- expressions ------------------------------------------------------------------------------------------------

class Walk:
    """One expression for croniter: local times, and whether they follow elapsed time."""

    def __init__(self, text):
        fields = NICK.get(text.lower(), text).split()
        quartz = len(fields) > 5
        seconds, minutes, hours, days, months, weekdays, years = (
            ([] if quartz else ["0"]) + fields + ([] if len(fields) == 7 else ["*"]))
        restricted = all(field[0] not in "*?" for field in (days, weekdays))
        self.elapsed = every(minutes, 60) or every(hours, 24)
        self.calendar = None
        weekdays = ",".join(weekday(part, quartz) for part in weekdays.split(","))
        if re.search(r"W|L-", days.upper()):
            assert weekdays in ("*", "?"), text
            self.calendar, days = days.upper().split(","), "*"
        self.text = " ".join([seconds, minutes, hours, days.lower(), months, weekdays, years])
        self.walk = croniter(self.text, datetime(2015, 1, 1), second_at_beginning=True,
                             day_or=restricted and not quartz, ret_type=datetime, max_years_between_matches=50)

    def between(self, first, last):
        """The local times from first to last, both included."""
        self.walk.set_current(first - timedelta(seconds=1), force=True)
        while True:
            try:
                local = self.walk.get_next(datetime)
            except CroniterBadDateError:
                return
            if local > last:
                return
            if self.calendar is None or any(on_calendar(part, local) for part in self.calendar):
                yield local


def every(field, count):
    """Whether a field lets every value through."""
    return field in ("*", "?", "*/1", f"0-{count - 1}")


def weekday(part, quartz):
    """A part of the weekday field in croniter's words."""
    def day(text):
        if text.isdigit():
            return NAMES[(int(text) - quartz) % 7]
        return text.lower()
    part = part.upper()
    if part in ("*", "?"):
        return part
    if part == "L":
        return "sat"
    if "#" in part:
        name, nth = part.split("#")
        return f"{day(name)}#{nth}"
    if part.endswith("L"):
        return f"L{NAMES.index(day(part[:-1]))}"
    span, _, step = part.partition("/")
    first, _, last = span.partition("-")
    if not step:
        return f"{day(first)}-{day(last)}" if last else day(first)
    # Steps: from the first day on, to the last of the range or to Saturday; croniter counts to 7.
    begin = 0 if first == "*" else NAMES.index(day(first))
    end = NAMES.index(day(last)) if last else 6
    end += 7 if end < begin else 0
    return ",".join(NAMES[number % 7] for number in range(begin, end + 1, int(step)))


def on_calendar(part, local):
    """Whether a date is what a day of month with L or W says, or has that number."""
    length = calendar.monthrange(local.year, local.month)[1]
    workday = part.endswith("W")
    part = part[:-1] if workday else part
    if part.startswith("L"):
        day = length - int(part[2:] or 0)
    else:
        day = int(part)
    if not 1 <= day <= length:
        return False
    if not workday:
        return local.day == day
    # The Monday to Friday of the month that is nearest.
    near = [d for d in range(1, length + 1) if calendar.weekday(local.year, local.month, d) < 5]
    return local.day == min(near, key=lambda d: abs(d - day))


@cache
def walks(text):
    return [Walk(part.strip()) for part in text.split(";")]


@cache
def all_local_times(text, number):
    return list(walks(text)[number].between(datetime(2014, 12, 30), datetime(2036, 1, 3)))


def moments(name, text, gap, fold, span):
    """The moments in (BEGIN, END], or around each change of the clock."""
    if SPANS[span] is None:
        windows = [(BEGIN, END)]
    else:
        around = sorted([at for at, _, _ in changes(name)] + PLAIN)
        windows = [(at - SPANS[span], at + SPANS[span]) for at in around]
    for low, high in windows:
        first, last = local_times_shown(name, low, high)
        found = set()
        for number, walk in enumerate(walks(text)):
            policy = ("skip", "both") if walk.elapsed else (gap, fold)
            local_times = all_local_times(text, number) if SPANS[span] is None else walk.between(first, last)
            for local in local_times:
                found.update(at for at in instants(local, name, *policy) if low < at <= high)
        yield from sorted(found)


# --- the fixture ------------------------------------------------------------------------------------------------

def expressions():
    span = None
    for line in (HERE / "expressions.txt").read_text().splitlines():
        if line.startswith("["):
            span = line.strip("[]")
        elif line and not line.startswith("#"):
            yield line, span


def digest(found):
    """FNV-1a with a moment in place of a byte."""
    value = 0xCBF29CE484222325
    for at in found:
        value = (value ^ at) * 0x100000001B3 % 2**64
    return value


def of_expression(task):
    """All zones of one expression: (zone, expression, policy, moments)."""
    number, text, span, names = task
    return [(index, number, (index + number) % 6, list(moments(name, text, *POLICIES[(index + number) % 6], span)))
            for index, name in enumerate(names)]


def make():
    names, asked = zones(), list(expressions())
    with multiprocessing.Pool() as pool:
        tasks = [(number, text, span, names) for number, (text, span) in enumerate(asked)]
        found = sorted(row for rows in pool.imap_unordered(of_expression, tasks) for row in rows)
    fixed = chosen(found)
    lines = [f"data {tzdata.IANA_VERSION}; croniter {importlib.metadata.version('croniter')}"]
    lines += [" ".join(["zone", name] + [str(at) for at, _, _ in changes(name)]) for name in names]
    for zone_, number, policy, at in found:
        deltas = [now - before for before, now in zip([0] + at, at)] if (zone_, number) in fixed else []
        lines.append(" ".join([str(zone_), str(number), *POLICIES[policy], str(len(at)), f"{digest(at):016x}"]
                              + [str(delta) for delta in deltas]))
    target = HERE / "moments.txt.gz"
    with open(target, "wb") as file, gzip.GzipFile(filename="", mode="wb", fileobj=file, mtime=0) as packed:
        packed.write(("\n".join(lines) + "\n").encode())
    total = sum(len(row[3]) for row in found)
    one_by_one = sum(len(row[3]) for row in found if row[:2] in fixed)
    print(f"{target}: {target.stat().st_size} bytes; {total} moments of {len(asked)} expressions in {len(names)} zones, "
          f"{sum(len(changes(name)) for name in names)} changes of clocks, data {tzdata.IANA_VERSION}; "
          f"{one_by_one} of them one by one")


def chosen(found):
    """The pairs that are compared one by one: two expressions in every zone, and others in turn until there are enough,
    each expression at least once."""
    in_all = [number for number, (text, _) in enumerate(expressions()) if text in IN_ALL_ZONES]
    fixed = {(zone_, number) for zone_, number, _, _ in found if number in in_all}
    size = {row[:2]: len(row[3]) for row in found}
    zones_, numbers = 1 + max(key[0] for key in size), 1 + max(key[1] for key in size)
    total = sum(size[pair] for pair in fixed)
    for turn in range(zones_):
        for number in (number for number in range(numbers) if number not in in_all):
            in_turn = [((number * 7 + turn + step) % zones_, number) for step in range(zones_)]
            fits = [pair for pair in in_turn if pair not in fixed and 0 < size[pair] <= FIXED_PAIR_MOST]
            pair = next(iter(fits), None) or min(in_turn, key=lambda pair: (pair in fixed, size[pair] == 0, size[pair]))
            if turn == 0 or total < FIXED_LEAST:
                total += size[pair] * (pair not in fixed)
                fixed.add(pair)
    return fixed


def show(name, text, gap, fold, span):
    for at in moments(name, text, gap, fold, span):
        utc = datetime.fromtimestamp(at, timezone.utc)
        print(at, utc.strftime("%Y-%m-%dT%H:%M:%SZ"), utc.astimezone(zone(name)).strftime("%a %Y-%m-%d %H:%M:%S %z"))


if __name__ == "__main__":
    match sys.argv[1:]:
        case ["make"]:
            make()
        case ["show", name, text, gap, fold, span]:
            show(name, text, gap, fold, span)
        case _:
            sys.exit(__doc__)
