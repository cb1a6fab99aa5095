// What a producer does, in Node: DATABASE_URL=postgres://… node producer.js TYPE
//
// The last thing it makes is a task of 60 splits for worker.js; it waits for the result and prints it.
import assert from "node:assert/strict";
import { setTimeout as sleep } from "node:timers/promises";
import pg from "pg";

const TYPE = process.argv[2];
const db = new pg.Client({ connectionString: process.env.DATABASE_URL });
await db.connect();
const rows = async (sql, ...values) => (await db.query(sql, values)).rows;
await db.query("create temporary table purchase (id bigint generated always as identity, what text)");

// Your rows and the task commit together …
await db.query("begin");
await db.query("insert into purchase (what) values ('a book')");
const insert = "insert into divvy.task (task_type, payload, run_at) values ($1, $2, 'tomorrow') returning id";
const [kept] = await rows(insert, TYPE, { order: "a book" });
await db.query("commit");

// … or not at all.
await db.query("begin");
await db.query("insert into purchase (what) values ('a ship')");
const [gone] = await rows(insert, TYPE, {});
await db.query("rollback");

assert.deepEqual(await rows("select what from purchase"), [{ what: "a book" }]);
assert.deepEqual(await rows("select status from divvy.task_result($1)", kept.id), [{ status: "scheduled" }]);
assert.deepEqual(await rows("select 1 from divvy.task_overview where task_id = $1", gone.id), []);

// Many at once: one statement, one parameter.
const many = JSON.stringify(Array.from({ length: 1000 }, (_, n) => ({ n })));
await rows("insert into divvy.task (task_type, payload, run_at) select $1, t, '2100-01-01' from jsonb_array_elements($2) t", TYPE, many);

// At most one open task with a key: the second is none.
const once = "insert into divvy.task (task_type, dedupe_key, run_at) values ($1, $2, 'tomorrow') on conflict do nothing returning id";
const key = `after task ${kept.id}`;
const [first, second] = [await rows(once, TYPE, key), await rows(once, TYPE, key)];
assert.deepEqual([first.length, second.length], [1, 0]);

// A divided task: 60 ranges of 100 numbers. Headers go to every split; a traceparent continues your trace.
const divided = "insert into divvy.task (task_type, payload, split_range, split_size, headers) values ($1, $2, '[0,6000)', 100, $3) returning id";
const traceparent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
const [task] = await rows(divided, TYPE, { seconds: Number(process.env.SECONDS_PER_SPLIT ?? 0.02) }, { traceparent });

// How it ended, or where it stands.
let ended;
while (!(ended = (await rows("select * from divvy.task_result($1)", task.id))[0]).finished_at) await sleep(50);
console.log(task.id, ended.status, ended.result);
await db.end();
