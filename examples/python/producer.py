"""What a producer does, in Python: DATABASE_URL=postgres://… python producer.py TYPE

The last thing it makes is a task of 60 splits for worker.py; it waits for the result and prints it.
"""

import os
import sys
import time

import psycopg
from psycopg.types.json import Jsonb

TYPE = sys.argv[1]

with psycopg.connect(os.environ["DATABASE_URL"]) as db:
    db.execute("create temporary table purchase (id bigint generated always as identity, what text)")
    db.commit()

    # Your rows and the task commit together …
    with db.transaction():
        db.execute("insert into purchase (what) values ('a book')")
        (kept,) = db.execute(
            "insert into divvy.task (task_type, payload, run_at) values (%s, %s, 'tomorrow') returning id",
            [TYPE, Jsonb({"order": "a book"})],
        ).fetchone()

    # … or not at all.
    with db.transaction():
        db.execute("insert into purchase (what) values ('a ship')")
        (gone,) = db.execute("insert into divvy.task (task_type) values (%s) returning id", [TYPE]).fetchone()
        raise psycopg.Rollback

    assert db.execute("select what from purchase").fetchall() == [("a book",)]
    assert db.execute("select status from divvy.task_result(%s)", [kept]).fetchone() == ("scheduled",)
    assert db.execute("select count(*) from divvy.task_overview where task_id = %s", [gone]).fetchone() == (0,)

    # Many at once: COPY, executemany and INSERT … SELECT all do.
    with db.cursor() as cursor:
        with cursor.copy("copy divvy.task (task_type, payload, run_at) from stdin") as copy:
            for n in range(1000):
                copy.write_row([TYPE, Jsonb({"n": n}), "2100-01-01"])

    # At most one open task with a key: the second is none.
    once = "insert into divvy.task (task_type, dedupe_key, run_at) values (%s, %s, 'tomorrow') on conflict do nothing returning id"
    first, second = (db.execute(once, [TYPE, f"after task {kept}"]).fetchone() for _ in range(2))
    assert first and not second

    # A divided task: 60 ranges of 100 numbers. Headers go to every split; a traceparent continues your trace.
    (task,) = db.execute(
        "insert into divvy.task (task_type, payload, split_range, split_size, headers) values (%s, %s, '[0,6000)', 100, %s) returning id",
        [
            TYPE,
            Jsonb({"seconds": float(os.environ.get("SECONDS_PER_SPLIT", "0.02"))}),
            Jsonb({"traceparent": "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"}),
        ],
    ).fetchone()
    db.commit()

    # How it ended, or where it stands.
    result = "select status, result, error, finished_at is not null from divvy.task_result(%s)"
    while not (ended := db.execute(result, [task]).fetchone())[3]:
        db.commit()
        time.sleep(0.05)
    print(task, ended[0], ended[1])
