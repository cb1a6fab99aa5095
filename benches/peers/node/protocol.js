// The same as rust/protocol, for Node: the commands, what is measured, and how the runner is told.

import { createInterface } from "node:readline";
import { setTimeout as sleep } from "node:timers/promises";

export const CLIENTS = 8;
const BATCH = 1_000;
const DEPTH = 20_000;
const PACE_MS = 20;
const WARM_UP = 10;
const STALLED_MS = 60_000;
const REST_MS = 300_000;
const FIRST = 1_000_000_000;

export function job(number) {
  return {
    task: 12345,
    split: FIRST + number,
    uri: "s3://bucket/path/to/object-000001.parquet",
    off: 0,
    len: 10,
  };
}

/** What the handlers did. */
export class Tally {
  calls = 0;
  #seen = new Map();
  begun = new Map();
  constructor(moments = 0) {
    this.moments = moments;
  }
  call(payload) {
    const number = payload.split - FIRST;
    if (number < this.moments && !this.begun.has(number)) this.begun.set(number, performance.now());
    // A bit for each number, a word for 32 of them.
    const word = number >>> 5;
    this.#seen.set(word, this.#seen.get(word) | (1 << (number & 31)));
    this.calls += 1;
  }
  missed(jobs) {
    let missed = 0;
    for (let number = 0; number < jobs; number += 1) {
      if (((this.#seen.get(number >>> 5) >>> (number & 31)) & 1) === 0) missed += 1;
    }
    return missed;
  }
}

function say(event, facts) {
  process.stdout.write(JSON.stringify({ event, ...facts }) + "\n");
}

function check(holds, otherwise) {
  if (!holds) throw new Error(otherwise());
}

let go;
async function ready(settings) {
  const told = new Promise((resolve) => {
    go = createInterface({ input: process.stdin });
    go.once("line", resolve);
  });
  say("ready", { settings });
  const line = await told;
  check(line.trim() === "go", () => `the runner said ${line} instead of go`);
}

const seconds = (since) => (performance.now() - since) / 1e3;

async function until(tally, enough) {
  let [last, moved] = [tally.calls, performance.now()];
  while (!enough(tally.calls)) {
    if (tally.calls > last) [last, moved] = [tally.calls, performance.now()];
    check(performance.now() - moved < STALLED_MS, () => `no handler was called for 60 s; ${tally.calls} calls so far`);
    await sleep(1);
  }
}

async function settled(peer, withinMs) {
  const started = performance.now();
  while (!(await peer.settled())) {
    check(performance.now() - started < withinMs, () => `not all jobs are recorded as done after ${withinMs} ms`);
    await sleep(10);
  }
}

async function verified(peer, tally, jobs) {
  const { open, kept } = await peer.standing();
  const missed = tally.missed(jobs);
  check(missed === 0 && tally.calls >= jobs, () => `${tally.calls} calls for ${jobs} jobs, ${missed} jobs never ran`);
  check(open === 0, () => `${open} of ${jobs} jobs are still open`);
  check(kept === null || kept >= jobs, () => `${kept} of ${jobs} finished jobs are kept`);
  say("done", { calls: tally.calls, repeated: tally.calls - jobs, open: 0, kept });
}

const add = (peer, from, count) => peer.add(Array.from({ length: count }, (_, at) => job(from + at)));

async function there(peer, jobs) {
  const { open } = await peer.standing();
  check(open === jobs, () => `${jobs} jobs were inserted, ${open} are there`);
  say("done", { open });
}

const phases = {
  async setup(peer) {
    await peer.setup();
    say("done", { settings: peer.settings });
  },

  async enqueue(peer, jobs) {
    await peer.produce();
    await ready(peer.settings);
    const started = performance.now();
    for (let at = 0; at < jobs; at += BATCH) await add(peer, at, Math.min(BATCH, jobs - at));
    say("measured", { jobs, seconds: seconds(started) });
    await there(peer, jobs);
  },

  async commits(peer, time) {
    await peer.produce();
    await ready(peer.settings);
    const started = performance.now();
    let jobs = 0;
    const client = async () => {
      while (seconds(started) < time) await peer.addOne(job(jobs++));
    };
    await Promise.all(Array.from({ length: CLIENTS }, client));
    say("measured", { jobs, seconds: seconds(started) });
    await there(peer, jobs);
  },

  async drain(peer, jobs) {
    const tally = new Tally();
    await ready(peer.settings);
    const started = performance.now();
    await peer.start(tally);
    await until(tally, (calls) => calls >= jobs);
    const handled = seconds(started);
    await settled(peer, STALLED_MS);
    say("measured", { jobs, seconds: seconds(started), handled_seconds: handled });
    await verified(peer, tally, jobs);
  },

  async latency(peer, jobs) {
    const tally = new Tally(jobs + WARM_UP);
    await peer.produce();
    await ready(peer.settings);
    await peer.start(tally);
    await sleep(2_000);
    const [started, inserts] = [performance.now(), []];
    for (let number = 0; number < jobs + WARM_UP; number += 1) {
      // By the clock, not after the last one: a late insert does not make the next one's wait shorter.
      await sleep(Math.max(0, started + number * PACE_MS - performance.now()));
      const called = performance.now();
      await peer.addOne(job(number));
      inserts.push([called, performance.now()]);
    }
    await until(tally, (calls) => calls >= jobs + WARM_UP);
    const wall = seconds(started);
    const counted = inserts.map(([called, committed], number) => {
      const begun = tally.begun.get(number);
      return [Math.max(0, begun - called), Math.max(0, begun - committed)];
    });
    counted.splice(0, WARM_UP);
    say("measured", {
      jobs,
      seconds: wall,
      from_call_ms: counted.map((each) => each[0]),
      from_commit_ms: counted.map((each) => each[1]),
    });
    await settled(peer, STALLED_MS);
    await verified(peer, tally, jobs + WARM_UP);
  },

  async steady(peer, time, every, from) {
    const tally = new Tally();
    await peer.produce();
    await ready(peer.settings);
    let [inserted, stop, wrong] = [from, false, null];
    const producing = (async () => {
      while (!stop) {
        if (inserted - tally.calls >= DEPTH) {
          await sleep(2);
          continue;
        }
        await add(peer, inserted, BATCH);
        inserted += BATCH;
      }
    })().catch((error) => {
      wrong = error;
    });
    await peer.start(tally);
    const started = performance.now();
    for (let next = every; next <= time && !wrong; next += every) {
      await sleep(Math.max(0, started + next * 1e3 - performance.now()));
      say("tick", { seconds: seconds(started), jobs: tally.calls });
    }
    stop = true;
    say("measured", { jobs: tally.calls, seconds: seconds(started) });
    await producing;
    if (wrong) throw wrong;
    const late = performance.now() + REST_MS;
    await until(tally, (calls) => calls >= inserted || performance.now() > late);
    await settled(peer, REST_MS);
    await verified(peer, tally, inserted);
  },
};

function option(words, name) {
  const at = words.indexOf(name);
  if (at < 0) return null;
  const number = Number(words[at + 1]);
  check(Number.isInteger(number), () => `${name} takes a number, not ${words[at + 1]}`);
  return number;
}

/** The main of every system: `connect(url, slots)` gives the peer; without slots it does what it does best with. */
export async function run(connect) {
  try {
    const [command, ...words] = process.argv.slice(2);
    check(command in phases, () => `unknown command ${command}`);
    check(process.env.DATABASE_URL, () => "DATABASE_URL is not set");
    const peer = await connect(process.env.DATABASE_URL, option(words, "--slots"));
    await phases[command](peer, Number(words[0]), option(words, "--every") ?? 15, option(words, "--from") ?? 0);
    process.exit(0);
  } catch (error) {
    say("failed", { reason: String(error?.message ?? error) });
    process.exit(1);
  }
}
