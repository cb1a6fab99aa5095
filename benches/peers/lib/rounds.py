"""Runs one system once, and all of them in turn."""

import json
import os
import queue
import subprocess
import threading
import time

from lib.server import Cpu, Hold, Refused, admin, database_url

DRAIN10 = ["--slots", "10"]
# Jobs that wait when flat begins, as many as its producer keeps waiting.
WAITING = 20_000
# Longest silence of a program before it is ended: setting up and working off are included.
SILENCE_S = 900


class Skipped(Exception):
    """A system that can't take part; the others go on."""


class Program:
    """A started program, line by line."""

    def __init__(self, system, words, url):
        self.system = system
        try:
            self.process = subprocess.Popen(
                [*system.command(), *words], env={**os.environ, **system.settings(), "DATABASE_URL": url},
                stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        except OSError as error:
            raise Skipped(f"{system.command()[0]}: {error.strerror}") from None
        self.lines, self.errors = queue.Queue(), []
        threading.Thread(target=self._read, daemon=True).start()
        threading.Thread(target=lambda: self.errors.extend(self.process.stderr), daemon=True).start()

    def _read(self):
        for line in self.process.stdout:
            self.lines.put(line)
        self.lines.put(None)

    def next(self):
        """The next event, or Skipped with the reason."""
        while True:
            try:
                line = self.lines.get(timeout=SILENCE_S)
            except queue.Empty:
                raise Skipped(f"silent for {SILENCE_S} s") from None
            if line is None:
                self.process.wait()
                time.sleep(0.1)
                said = "".join(self.errors).strip().splitlines()
                why = [words for words in said if "error" in words.lower()] or said[-1:] or ["no reason given"]
                raise Skipped(f"ended with code {self.process.returncode}: {why[0]}")
            if not line.startswith('{"'):
                continue
            event = json.loads(line)
            if event.get("event") == "failed":
                raise Skipped(event["reason"])
            if "event" in event:
                return event

    def go(self):
        self.process.stdin.write("go\n")
        self.process.stdin.flush()

    def end(self):
        try:
            self.process.stdin.close()
        except OSError:
            pass
        try:
            self.process.wait(timeout=15)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()


class Bench:
    """The server, and where everyone's databases are."""

    def __init__(self, url, keep):
        self.url, self.keep = url, keep
        self.info = admin(url, "info")
        self.prefix = self.info["database"] + "_peers_"
        if not self.info["may_create"]:
            raise Refused("the role may not create databases: ALTER ROLE … CREATEDB")

    def fresh(self, system):
        """An empty database with the system's schema: its name and its URL."""
        name = self.prefix + system.name.replace("-", "_")
        admin(self.url, "create", name)
        url = database_url(self.url, name)
        self.run(system, ["setup"], name, url)
        return name, url

    def forget(self, system):
        if not self.keep:
            admin(self.url, "drop", self.prefix + system.name.replace("-", "_"))

    def run(self, system, words, name, url, hold_after=None):
        """One program from start to end; what it said, with the CPU time around what was measured."""
        program = Program(system, words, url)
        cpu = Cpu(self.info["postmaster"], name)
        result, ticks, holds, before = {}, [], [], None
        timer = None
        try:
            while True:
                event = program.next()
                what = event.pop("event")
                if what == "ready":
                    result["settings"] = event["settings"]
                    before = cpu.read(program.process.pid)
                    if hold_after is not None:
                        timer = threading.Timer(hold_after, lambda: holds.append(Hold(url)))
                        timer.start()
                    program.go()
                elif what == "tick":
                    event["cpu"] = cpu.read(program.process.pid)
                    # The hold may come just before the tick of the same second, which tells of the time before it.
                    event["held"] = bool(holds) and event["seconds"] > hold_after + 0.5
                    ticks.append(event)
                elif what == "measured":
                    after = cpu.read(program.process.pid)
                    result |= event | spent(before, after, event["jobs"])
                    release(timer, holds)
                else:
                    result |= event
                    break
        finally:
            release(timer, holds)
            program.end()
            cpu.close()
        if ticks:
            result["curve"] = curve(before, ticks)
        return result

    def once(self, what, system, options):
        """One measurement of one system, in a database of its own."""
        try:
            name, url = self.fresh(system)
            jobs = str(options.tasks)
            if what == "enqueue":
                bulk = self.run(system, ["enqueue", jobs], name, url)
                single = self.run(system, ["commits", str(options.commit_seconds)], *self.fresh(system))
                return {"settings": bulk["settings"], "bulk": bulk, "single": single}
            if what == "flat":
                # Nobody starts on statistics of an empty table.
                self.run(system, ["enqueue", str(WAITING)], name, url)
                admin(url, "tidy")
                seconds = options.flat_seconds
                words = ["steady", str(seconds), "--every", str(options.every), "--from", str(WAITING)]
                return self.run(system, words, name, url, hold_after=seconds / 4)
            if what == "latency":
                admin(url, "tidy")
                return self.run(system, ["latency", str(options.latency_tasks)], name, url)
            slots = DRAIN10 if what == "drain10" else []
            self.run(system, ["enqueue", jobs], name, url)
            admin(url, "tidy")
            return self.run(system, ["drain", jobs, *slots], name, url)
        finally:
            self.forget(system)


def release(timer, holds):
    if timer is not None:
        timer.cancel()
    while holds:
        holds.pop().release()


def spent(before, after, jobs):
    """CPU microseconds a job, and what other databases used meanwhile."""
    server, client, other = (b - a for a, b in zip(before, after))
    each = 1e6 / max(jobs, 1)
    return {"server_us": server * each, "client_us": client * each, "other_cpu_s": other}


def curve(before, ticks):
    """Rates and CPU between one tick and the next."""
    points, last = [], {"seconds": 0.0, "jobs": 0, "cpu": before}
    for tick in ticks:
        jobs, seconds = tick["jobs"] - last["jobs"], tick["seconds"] - last["seconds"]
        used = sum(b - a for a, b in zip(last["cpu"][:2], tick["cpu"][:2]))
        points.append({"seconds": tick["seconds"], "rate": jobs / seconds, "held": tick["held"],
                       "cpu_us": used * 1e6 / jobs if jobs else None})
        last = tick
    return points
