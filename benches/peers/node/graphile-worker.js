// graphile-worker (Node): local queue and batched completion, as its documentation on performance says.

import { makeWorkerUtils, run as runWorker, Logger } from "graphile-worker";
import pg from "pg";
import { run } from "./protocol.js";

const CONCURRENCY = 50;
const LOCAL_QUEUE = 5_000;
const POOL = 10;
const quiet = new Logger(() => () => {});

await run(async (url, slots) => {
  const pool = new pg.Pool({ connectionString: url, max: POOL });
  const [concurrency, local] = slots ? [slots, slots] : [CONCURRENCY, LOCAL_QUEUE];
  const utils = await makeWorkerUtils({ pgPool: pool, logger: quiet });
  return {
    settings: `local queue ${local}, concurrency ${concurrency}, completions batched (0 ms), pool of ${POOL}; addJobs`,
    setup: () => utils.migrate(),
    produce: async () => {},
    add: (jobs) => utils.addJobs(jobs.map((payload) => ({ identifier: "noop", payload }))),
    addOne: (payload) => utils.addJob("noop", payload),
    async start(tally) {
      await runWorker({
        pgPool: pool,
        logger: quiet,
        noHandleSignals: true,
        taskList: { noop: async (payload) => tally.call(payload) },
        preset: {
          worker: {
            concurrentJobs: concurrency,
            maxPoolSize: POOL,
            localQueue: { size: local },
            completeJobBatchDelay: 0,
            failJobBatchDelay: 0,
          },
        },
      });
    },
    async settled() {
      const { rows } = await pool.query("select not exists (select from graphile_worker._private_jobs) as settled");
      return rows[0].settled;
    },
    async standing() {
      const { rows } = await pool.query("select count(*)::int as open from graphile_worker._private_jobs");
      // Success deletes the row.
      return { open: rows[0].open, kept: null };
    },
  };
});
