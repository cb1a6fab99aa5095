// A divvy worker in Node: DATABASE_URL=postgres://… node worker.js TYPE
//
// Its job: the sum of squares of a range of numbers. Each split has {"lo", "hi"}; reduce adds what they returned.
import { randomUUID } from "node:crypto";
import { setTimeout as sleep } from "node:timers/promises";
import pg from "pg";

const TYPE = process.argv[2];
const ME = randomUUID();
const SLOTS = 4;
// What a type is like that nobody has declared yet: it has a reduce, and a worker that dies is noticed after 3 s.
const META = { types: { [TYPE]: { reduce: true, lease: "3 s", backoff: { kind: "fixed", base: 1 } } } };

const pool = new pg.Pool({ connectionString: process.env.DATABASE_URL, max: SLOTS + 3 });
const rows = async (sql, ...values) => (await pool.query(sql, values)).rows;

class Later extends Error {} // not finished: call me again

// Your work. The signal fires when nobody wants it any more.
async function execute(split, signal) {
  await sleep(1000 * (split.payload.seconds ?? 0), undefined, { signal });
  if (split.payload.poll && !split.checkpoint) throw new Later("", { cause: { asked: 1 } });
  let sum = 0;
  for (let n = split.split_payload.lo; n < split.split_payload.hi; n++) sum += n * n;
  return sum;
}

// Your end of the task: the results come in pages, in the order of the splits.
async function reduce(split) {
  let total = 0;
  for (let after = 0, page; ; after = page.at(-1).split_no) {
    page = await rows("select * from divvy.reduce_inputs($1, $2, $3)", split.split_id, split.token, after);
    if (page.length === 0) return total;
    for (const input of page) if (input.status === "succeeded") total += input.result;
  }
}

// -- the worker -------------------------------------------------------------------------------------------------------
const held = new Map(); // split → { token, abort }: what the heartbeat renews. Ids are bigints: pg gives them as texts.
const stop = new AbortController();
let quiet = false;
let wake = () => {};

async function run(split) {
  const { signal } = held.get(split.split_id).abort;
  const me = [split.split_id, split.token];
  const client = await pool.connect();
  try {
    const trace = split.headers?.traceparent; // whoever made the task goes on in your spans
    if (trace) await rows("select divvy.log($1, $2, 'debug', $3)", ...me, `in the trace ${trace}`);
    await client.query("begin"); // what you write on this client commits with the outcome, or not at all
    const result = split.phase === "reduce" ? await reduce(split) : await execute(split, signal);
    await client.query("select divvy.complete($1, $2, $3)", [...me, JSON.stringify(result)]);
    await client.query("commit");
  } catch (error) {
    await client.query("rollback");
    if (error instanceof Later) await rows("select divvy.snooze($1, $2, '1 s', $3)", ...me, JSON.stringify(error.cause));
    else if (signal.aborted) await rows("select divvy.release($1, $2)", ...me);
    else await rows("select divvy.fail($1, $2, $3)", ...me, JSON.stringify({ class: error.name, message: error.message }));
  } finally {
    client.release();
    held.delete(split.split_id);
    wake();
  }
}

// Renews the leases, and hears what is not wanted any more and what an operator wants.
async function beat() {
  const all = [...held];
  const sql = "select split_id, verdict from divvy.heartbeat($1, $2, $3)";
  for (const { split_id, verdict } of await rows(sql, ME, all.map(([id]) => id), all.map(([, { token }]) => token))) {
    if (split_id !== null) verdict === "ok" || held.get(split_id)?.abort.abort();
    else if (verdict === "terminate") stop.abort();
    else quiet = verdict === "quiet"; // the last row is for the worker itself: run, quiet or terminate
  }
}

const seconds = "extract(epoch from heartbeat)::float8 as seconds";
const [{ seconds: every }] = await rows(`select ${seconds} from divvy.register_worker($1, 'node', $2, $3, $4)`, ME, [TYPE], SLOTS, META);
const heart = setInterval(() => beat().catch((error) => console.error(error.message)), every * 1000);
for (const name of ["SIGTERM", "SIGINT"]) process.on(name, () => stop.abort());
stop.signal.addEventListener("abort", () => wake());
const listener = await pool.connect();
listener.on("notification", () => wake());
await listener.query("listen divvy_ready");

while (!stop.signal.aborted) {
  const free = quiet ? 0 : SLOTS - held.size;
  const splits = free ? await rows("select * from divvy.claim($1, $2, $3)", ME, [TYPE], free) : [];
  for (const split of splits) {
    if (stop.signal.aborted) {
      await rows("select divvy.release($1, $2)", split.split_id, split.token); // what has not begun goes back at once
      continue;
    }
    held.set(split.split_id, { token: split.token, abort: new AbortController() });
    // Lost, cancelled: nothing left to say.
    run(split).catch((error) => ["DV001", "DV002"].includes(error.code) || console.error(error.message));
  }
  if (splits.length || stop.signal.aborted) continue;
  // Sleep as long as the database says, or until something comes or ends.
  const woken = new Promise((resolve) => (wake = resolve));
  const [{ wait }] = await rows("select extract(epoch from divvy.next_wait($1))::float8 as wait", [TYPE]);
  const timer = setTimeout(wake, 1000 * (held.size ? 1 : wait));
  await woken;
  clearTimeout(timer);
}
while (held.size) await new Promise((resolve) => (wake = resolve)); // what has begun may finish
clearInterval(heart);
listener.release(true);
await pool.end();
