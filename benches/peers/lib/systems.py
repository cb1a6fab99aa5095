"""What is compared: where its program is, what its contract is, and where its version is written."""

import json
import re
from dataclasses import dataclass
from pathlib import Path

HERE = Path(__file__).resolve().parent.parent
RUST = HERE / "rust"
NODE = HERE / "node"


@dataclass(frozen=True)
class System:
    """One row of the table."""

    name: str
    kind: str  # rust or node
    package: str  # of the registry, for the version
    program: str  # cargo package, or script
    contract: str
    flat: bool = False  # whether the held snapshot is shown without asking for it
    keeps: bool = True  # whether a finished job can still be asked for
    no_peer: str | None = None  # shown, but no job queue: never the best peer
    threads: int | None = None  # of its runtime, where the default of one for each core is slower

    def settings(self):
        """Of its environment."""
        return {"TOKIO_WORKER_THREADS": str(self.threads)} if self.threads else {}

    def command(self):
        if self.kind == "rust":
            return [str(RUST / "target" / "release" / self.program)]
        return ["node", str(NODE / self.program)]

    def build(self):
        """The command that builds it, and where."""
        if self.kind == "rust":
            return ["cargo", "build", "--release", "--locked", "-p", self.program], RUST
        return ["npm", "ci", "--no-audit", "--no-fund"], NODE


SYSTEMS = [
    System("divvy", "rust", "divvy", "peers-divvy", "history kept; every split acknowledged", True,
           threads=1),
    System("floor", "rust", "", "peers-floor",
           "hand-written SQL s_fused: history kept, no leases renewed, no retries, no product", True, no_peer="floor"),
    System("graphile_worker", "rust", "graphile_worker", "peers-graphile-worker",
           "row deleted on success; completions wait in memory for 5 ms", True, keeps=False, threads=1),
    System("riverqueue", "rust", "riverqueue", "peers-riverqueue", "history kept (24 h); every job acknowledged"),
    System("awa", "rust", "awa", "peers-awa",
           "history kept until its segment rotates; every job acknowledged, compact receipts", True),
    System("apalis-postgres", "rust", "apalis-postgres", "peers-apalis-postgres",
           "history kept; every job acknowledged"),
    System("graphile-worker", "node", "graphile-worker", "graphile-worker.js",
           "row deleted on success; completions batched", keeps=False),
    System("pg-boss", "node", "pg-boss", "pg-boss.js", "history kept (7 days); batch acknowledged at once"),
    System("pgmq", "rust", "pgmq", "peers-pgmq",
           "no job semantics: a message is read and deleted, batch acknowledged at once", keeps=False, no_peer="queue"),
]
ADMIN = [str(RUST / "target" / "release" / "peers-admin")]


def named(names):
    """The systems with these names, in the table's order."""
    known = {system.name: system for system in SYSTEMS}
    unknown = [name for name in names if name not in known]
    if unknown:
        raise SystemExit(f"no such system: {', '.join(unknown)}; there are {', '.join(known)}")
    return [system for system in SYSTEMS if system.name in names]


def version(system):
    """As locked."""
    if not system.package:
        return "-"
    if system.kind == "node":
        lock = json.loads((NODE / "package-lock.json").read_text())
        return lock["packages"][f"node_modules/{system.package}"]["version"]
    lock = (RUST / "Cargo.lock").read_text()
    found = re.search(rf'name = "{re.escape(system.package)}"\nversion = "([^"]+)"', lock)
    return found.group(1) if found else "?"
