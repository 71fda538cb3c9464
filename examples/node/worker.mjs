// Works while its task leads: `SIDECAR_URL=http://127.0.0.1:4040 node worker.mjs background_services`.

import { appendFileSync } from "node:fs";
import { setTimeout as sleep } from "node:timers/promises";

import { LeaseClient } from "./lease_client.mjs";

const stop = new AbortController();
process.once("SIGTERM", () => stop.abort());
process.once("SIGINT", () => stop.abort());

const say = (line) => (process.env.DIARY ? appendFileSync(process.env.DIARY, `${line}\n`) : console.log(line));

async function work(term, signal) {
  say(`begin ${term.holder} ${term.token} ${term.name}`);
  while (!signal.aborted) {
    term.check(); // and write with term.token: UPDATE ... WHERE token <= $1
    await sleep(100, undefined, { signal }).catch(() => {});
  }
  await sleep(200); // clean-up
  say(`end ${term.holder} ${term.token} ${term.remaining() > 0 ? "in time" : "late"}`);
}

const client = new LeaseClient(process.env.SIDECAR_URL);
await client.run(process.argv[2] ?? "background_services", work, { signal: stop.signal });
process.exit(0);
