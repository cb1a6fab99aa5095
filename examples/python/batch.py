"""The same for short splits: DATABASE_URL=postgres://… python batch.py TYPE

One round trip ends a batch of splits and claims the next. Their outcomes are verdicts, not errors, so effects elsewhere
happen at least once. Splits that fail, and everything long, belong into worker.py.
"""

import os
import signal
import sys
import uuid

import psycopg
from psycopg.types.json import Jsonb

URL, TYPE = os.environ["DATABASE_URL"], sys.argv[1]
ME, BATCH = uuid.uuid4(), int(os.environ.get("BATCH", "100"))


def execute(split):
    return sum(n * n for n in range(split["split_payload"]["lo"], split["split_payload"]["hi"]))


def work(db, stop):
    db.execute("select divvy.register_worker(%s, 'python batch', %s, %s)", [ME, [TYPE], BATCH])
    step = "select completed, claimed from divvy.complete_and_claim(%s, %s, %s, %s, %s, %s)"
    splits, count = [], 0
    while splits or not stop:
        ids, tokens = [split["split_id"] for split in splits], [split["token"] for split in splits]
        results = Jsonb([execute(split) for split in splits])
        done, splits = db.execute(step, [ME, ids, tokens, results, [TYPE], 0 if stop else BATCH]).fetchone()
        count += sum(one["verdict"] == "ok" for one in done)
        if not splits and not stop:
            (wait,) = db.execute("select divvy.next_wait(%s)", [[TYPE]]).fetchone()
            list(db.notifies(timeout=wait.total_seconds(), stop_after=1))
    return count


if __name__ == "__main__":
    stop = []
    signal.signal(signal.SIGTERM, lambda *_: stop.append(True))
    with psycopg.connect(URL, autocommit=True) as connection:
        connection.execute("listen divvy_ready")
        print(work(connection, stop), "splits")
