"""The server under test: its settings, its databases, its CPU time."""

import json
import os
import subprocess
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

    Backends of other databases are left out as long as they live (their title names the database); what others'
    backends used is in the figure once they have ended. A server that nobody else uses gives the best figures.
    """

    def __init__(self, backend_parent, database):
        self.postmaster = backend_parent
        self.database = database

    def read(self, client):
        """(server, client, other databases) in seconds so far."""
        server = other = 0.0
        for entry in os.scandir("/proc"):
            if not entry.name.isdigit():
                continue
            found = stat(entry.name)
            if found is None:
                continue
            parent, own, ended = found
            if int(entry.name) == self.postmaster:
                server += own + ended
            elif parent == self.postmaster:
                if self.foreign(entry.name):
                    other += own
                else:
                    server += own
        mine = stat(str(client))
        return server, mine[1] + mine[2] if mine else 0.0, other

    def foreign(self, pid):
        try:
            with open(f"/proc/{pid}/cmdline", encoding="utf-8", errors="replace") as title:
                words = title.read().replace("\0", " ").split()
        except OSError:
            return False
        # "postgres: USER DATABASE [local] …" is a client's; "postgres: checkpointer" is everyone's.
        return len(words) > 3 and words[0].startswith("postgres") and self.database not in words \
            and ("[local]" in words or any("(" in word for word in words))


def stat(pid):
    """(parent, own seconds, seconds of ended children), or nothing if the process is gone."""
    try:
        with open(f"/proc/{pid}/stat", encoding="utf-8", errors="replace") as file:
            text = file.read()
    except OSError:
        return None
    words = text[text.rindex(")") + 2:].split()
    return int(words[1]), (int(words[11]) + int(words[12])) / TICKS, (int(words[13]) + int(words[14])) / TICKS
