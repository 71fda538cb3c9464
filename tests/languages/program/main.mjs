// Campaigns for each lease of the command line at the same time, with one client. `tests/languages/one_client.py` runs it.

import { getEventListeners } from "node:events";

import { LeaseClient } from "../../../examples/node/lease_client.mjs";

const stop = new AbortController();
process.once("SIGTERM", () => stop.abort());

async function work(term, signal) {
  console.log(`begin ${term.name} ${term.token} ${getEventListeners(stop.signal, "abort").length}`);
  if (process.env.WORK === "spins") {
    await new Promise(setImmediate); // the client now waits for the end of the work or of the term
    while (term.remaining() > 0); // the work is the first to see the end of the term, as after a freeze of the process
    term.check();
  } else if (!signal.aborted) {
    await new Promise((resolve) => signal.addEventListener("abort", resolve, { once: true }));
  }
  console.log(`end ${term.name} ${term.token}`);
}

const client = new LeaseClient(process.env.SIDECAR_URL, { stopBefore: 0 });
const campaign = (name) =>
  client.run(name, work, { signal: stop.signal }).catch((error) => console.log(`error ${error.message}`));
await Promise.all(process.argv.slice(2).map(campaign));
process.exit(0);
