// pg-boss (Node): large batches fetched without a pause while they are full, woken by notifications.

import pg from "pg";
import { PgBoss } from "pg-boss";
import { CLIENTS, run } from "./protocol.js";

const QUEUE = "noop";
const BATCH = 2_000;
const WORKERS = 2;
// The shortest it allows; notifications come first.
const POLL_S = 0.5;

await run(async (url, slots) => {
  const boss = new PgBoss({ connectionString: url, max: CLIENTS, schedule: false, useListenNotify: true });
  // Warnings and errors of a run that goes on; what matters shows in the counts.
  boss.on("error", (error) => console.error(error.message));
  const pool = new pg.Pool({ connectionString: url, max: 1 });
  const batch = slots ? Math.max(1, Math.floor(slots / WORKERS)) : BATCH;
  let started;
  const begin = () => (started ??= boss.start());
  const count = async (states) => {
    const { rows } = await pool.query("select count(*)::int as n from pgboss.job where name = $1 and state::text = any($2)", [
      QUEUE,
      states,
    ]);
    return rows[0].n;
  };
  return {
    settings: `${WORKERS} workers of batch ${batch}, burstWhenBatchFull, notified and polling each ${POLL_S} s, pool of ${CLIENTS}; insert`,
    async setup() {
      await begin();
      await boss.createQueue(QUEUE, { notify: true });
    },
    produce: begin,
    add: (jobs) => boss.insert(QUEUE, jobs.map((data) => ({ data }))),
    addOne: (data) => boss.send(QUEUE, data),
    async start(tally) {
      await begin();
      const options = {
        batchSize: batch,
        localConcurrency: WORKERS,
        burstWhenBatchFull: true,
        pollingIntervalSeconds: POLL_S,
        notifyPollingIntervalSeconds: POLL_S,
      };
      await boss.work(QUEUE, options, async (jobs) => {
        for (const { data } of jobs) tally.call(data);
      });
    },
    settled: async () => (await count(["created", "retry", "active"])) === 0,
    standing: async () => ({ open: await count(["created", "retry", "active"]), kept: await count(["completed"]) }),
  };
});
