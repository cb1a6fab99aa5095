"""A divvy worker in Python: DATABASE_URL=postgres://… python worker.py TYPE

Its job: the sum of squares of a range of numbers. Each split has {"lo", "hi"}; reduce adds what they returned.
"""

import os
import signal
import sys
import threading
import time
import uuid

import psycopg
from psycopg.rows import namedtuple_row
from psycopg.types.json import Jsonb

URL, TYPE = os.environ["DATABASE_URL"], sys.argv[1]
ME, SLOTS = uuid.uuid4(), 4
# What a type is like that nobody has declared yet: it has a reduce, and a worker that dies is noticed after 3 s.
META = {"types": {TYPE: {"reduce": True, "lease": "3 s", "backoff": {"kind": "fixed", "base": 1}}}}

held = {}  # split → token: what the heartbeat renews
unwanted = set()  # splits that were cancelled or lost
stop, quiet, done = threading.Event(), threading.Event(), threading.Event()


class Cancelled(Exception):
    """The split is not wanted any more."""


class Later(Exception):
    """Not finished: call me again, with this as the checkpoint."""


def execute(split):
    """Your work. It looks now and then whether it is still wanted."""
    until = time.monotonic() + split.payload.get("seconds", 0)
    while (left := until - time.monotonic()) > 0:
        if split.split_id in unwanted:
            raise Cancelled
        time.sleep(min(left, 0.1))
    if split.payload.get("poll") and not split.checkpoint:
        raise Later({"asked": 1})
    return sum(n * n for n in range(split.split_payload["lo"], split.split_payload["hi"]))


def reduce(db, split):
    """Your end of the task: the results come in pages, in the order of the splits."""
    total, after = 0, 0
    while page := db.execute(
        "select * from divvy.reduce_inputs(%s, %s, %s)", [split.split_id, split.token, after]
    ).fetchall():
        total += sum(row.result for row in page if row.status == "succeeded")
        after = page[-1].split_no
    return total


# -- the worker --------------------------------------------------------------------------------------------------------
def beat(every):
    """Renews the leases, and hears what is not wanted any more and what an operator wants."""
    try:
        with psycopg.connect(URL, autocommit=True) as db:
            while not done.wait(every):
                splits = list(held.items())
                ids, tokens = [id for id, _ in splits], [token for _, token in splits]
                for split, verdict in db.execute("select * from divvy.heartbeat(%s, %s, %s)", [ME, ids, tokens]):
                    if split is None:  # for the worker itself: run, quiet or terminate
                        quiet.clear() if verdict == "run" else quiet.set()
                        stop.set() if verdict == "terminate" else None
                    elif verdict != "ok":
                        unwanted.add(split)
    finally:
        stop.set()  # without a heartbeat there is no worker


def run(db, split):
    me = [split.split_id, split.token]
    try:
        if trace := (split.headers or {}).get("traceparent"):  # whoever made the task goes on in your spans
            db.execute("select divvy.log(%s, %s, 'debug', %s)", [*me, f"in the trace {trace}"])
        try:
            with db.transaction():  # what you write in here commits with the outcome, or not at all
                result = reduce(db, split) if split.phase == "reduce" else execute(split)
                db.execute("select divvy.complete(%s, %s, %s)", [*me, Jsonb(result)])
        except Later as later:
            db.execute("select divvy.snooze(%s, %s, '1 s', %s)", [*me, Jsonb(later.args[0])])
        except Cancelled:
            db.execute("select divvy.release(%s, %s)", me)
        except Exception as error:
            problem = Jsonb({"class": type(error).__name__, "message": str(error)})
            db.execute("select divvy.fail(%s, %s, %s)", [*me, problem])
    except psycopg.Error as error:
        if error.sqlstate not in ("DV001", "DV002"):  # lost, cancelled: nothing left to say
            raise


def work(db):
    for name in (signal.SIGTERM, signal.SIGINT):
        signal.signal(name, lambda *_: stop.set())
    register = "select * from divvy.register_worker(%s, 'python', %s, %s, %s)"
    command, every = db.execute(register, [ME, [TYPE], SLOTS, Jsonb(META)]).fetchone()
    threading.Thread(target=beat, args=[every.total_seconds()]).start()
    db.execute("listen divvy_ready")
    while not stop.is_set():
        splits = [] if quiet.is_set() else db.execute("select * from divvy.claim(%s, %s, %s)", [ME, [TYPE], SLOTS]).fetchall()
        held.update((split.split_id, split.token) for split in splits)
        for split in splits:
            if stop.is_set():  # what has not begun goes back at once
                db.execute("select divvy.release(%s, %s)", [split.split_id, split.token])
            else:
                run(db, split)
            held.pop(split.split_id)
            unwanted.discard(split.split_id)
        if not splits:  # sleep as long as the database says, or until something comes
            (wait,) = db.execute("select divvy.next_wait(%s)", [[TYPE]]).fetchone()
            list(db.notifies(timeout=wait.total_seconds(), stop_after=1))


if __name__ == "__main__":
    with psycopg.connect(URL, autocommit=True, row_factory=namedtuple_row) as connection:
        try:
            work(connection)
        finally:
            done.set()
