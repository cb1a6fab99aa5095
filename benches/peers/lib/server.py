"""The server under test: its settings, its databases, its CPU time."""

import json
import os
import subprocess
import threading
from urllib.parse import quote, urlsplit, urlunsplit

from lib.systems import ADMIN

TICKS = os.sysconf("SC_CLK_TCK")


class Refused(Exception):
    """The server or a system said no."""


def database_url(url, name):
    """The same server, another database."""
    parts = urlsplit(url)
    return urlunsplit(parts._replace(path="/" + quote(name)))


def admin(url, *words):
    """One call of the small program that speaks to the server."""
    done = subprocess.run([*ADMIN, *words], env={**os.environ, "DATABASE_URL": url}, capture_output=True, text=True)
    line = done.stdout.strip().splitlines()
    facts = json.loads(line[-1]) if line else {"reason": done.stderr.strip() or "no answer"}
    if done.returncode != 0:
        raise Refused(f"{' '.join(words)}: {facts['reason']}")
    return facts


class Hold:
    """A snapshot that another connection holds, until released."""

    def __init__(self, url):
        self.process = subprocess.Popen([*ADMIN, "hold"], env={**os.environ, "DATABASE_URL": url},
                                        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        line = self.process.stdout.readline()
        if '"held":true' not in line:
            raise Refused(f"hold: {line.strip()}")

    def release(self):
        self.process.stdin.close()
        self.process.wait()
        self.process.stdout.close()


class Cpu:
    """CPU seconds of the server and of one client process, from /proc.

    What backends of other databases use is left out: their titles name the database, and a look each half second
    notes what they had used when they end. One that begins and ends between two looks is in the figure, so a server
    that nobody else uses gives the best figures.
    """

    LOOK_S = 0.5

    def __init__(self, postmaster, database):
        self.postmaster, self.database = postmaster, database
        self.others, self.others_ended = {}, 0.0
        self.lock, self.over = threading.Lock(), threading.Event()
        threading.Thread(target=self._watch, daemon=True).start()

    def close(self):
        self.over.set()

    def _watch(self):
        while not self.over.wait(self.LOOK_S):
            self._look()

    def _look(self):
        """(own backends and the server's processes, other databases' backends) in seconds so far."""
        with self.lock:
            server, seen = 0.0, {}
            for pid in children(self.postmaster):
                found = stat(pid)
                if found is None:
                    continue
                if self._foreign(pid):
                    seen[pid] = found[1]
                else:
                    server += found[1]
            # What has ended is in the postmaster's sum of its children.
            self.others_ended += sum(used for pid, used in self.others.items() if pid not in seen)
            self.others = seen
            main = stat(self.postmaster) or (0, 0.0, 0.0)
            return main[1] + main[2] + server - self.others_ended, sum(seen.values()) + self.others_ended

    def read(self, client):
        """(server, client, other databases) in seconds so far."""
        server, others = self._look()
        mine = stat(client)
        return server, mine[1] + mine[2] if mine else 0.0, others

    def _foreign(self, pid):
        try:
            with open(f"/proc/{pid}/cmdline", encoding="utf-8", errors="replace") as title:
                words = title.read().replace("\0", " ").split()
        except OSError:
            return False
        # "postgres: USER DATABASE [local] …" is a client's, "postgres: autovacuum worker DATABASE" is too;
        # "postgres: checkpointer" is everyone's.
        of_a_database = "[local]" in words or words[1:3] == ["autovacuum", "worker"] or any("(" in word for word in words)
        return len(words) > 3 and of_a_database and self.database not in words


def children(postmaster):
    """The server's processes."""
    try:
        with open(f"/proc/{postmaster}/task/{postmaster}/children", encoding="ascii") as file:
            return [int(pid) for pid in file.read().split()]
    except OSError:
        # A kernel without that file: look at everyone.
        pids = [int(entry) for entry in os.listdir("/proc") if entry.isdigit()]
        return [pid for pid in pids if (stat(pid) or (0,))[0] == postmaster]


def stat(pid):
    """(parent, own seconds, seconds of ended children), or nothing if the process is gone."""
    try:
        with open(f"/proc/{pid}/stat", encoding="utf-8", errors="replace") as file:
            text = file.read()
    except OSError:
        return None
    words = text[text.rindex(")") + 2:].split()
    return int(words[1]), (int(words[11]) + int(words[12])) / TICKS, (int(words[13]) + int(words[14])) / TICKS
