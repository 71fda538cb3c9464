// A client of the lease sidecar without dependencies, for Node 18 or later. docs/http-contract.md has the rules.
//
//     const client = new LeaseClient();
//     await client.run("background_services", async (term, signal) => { ... }, { signal: stop.signal });
//
// The client uses its own clock: a grant counts from before the request was sent, and only a valid answer extends it.

import { randomBytes } from "node:crypto";
import http from "node:http";
import { setTimeout as sleep } from "node:timers/promises";

const WAIT = 10; // seconds: the wait of a held request while this process follows
const LIMIT = 1; // seconds: the timeout of an answer, in addition to the wait
const SPACING = 0.02; // seconds: the minimum time between two requests
const TICK = 0.25; // seconds: the maximum time between two checks of the clock
const LONGEST_ANSWER = 16 * 1024; // bytes
const LONGEST_GRANT = 60; // seconds

/** Seconds of the monotonic clock. */
const now = () => Number(process.hrtime.bigint()) / 1e9;

/** The term is over: the work may do nothing more under it. */
export class TermOver extends Error {}

/** One term: the lease's name, the fencing token, and the id of the task that holds it. */
export class Term {
  #deadline;
  #reserve = 0;
  #stopAt;
  #ended = false;

  constructor(answer, stopBefore) {
    this.name = answer.lease;
    this.token = answer.token;
    this.holder = answer.instance_id;
    this.stopBefore = stopBefore;
    this.#deadline = Infinity;
    this.extend(answer.deadline);
  }

  /** Seconds for which the client may still act; 0 once the term is over. */
  remaining() {
    return this.#ended ? 0 : Math.max(this.#deadline - now(), 0);
  }

  /** Seconds until the work is asked to stop. */
  workingTime() {
    return this.#ended ? 0 : Math.max(this.#stopAt - now(), 0);
  }

  /** Throw TermOver if the term is over. Call it between two steps of the work. */
  check() {
    if (this.remaining() <= 0) throw new TermOver(`term ${this.token} of ${this.name} is over`);
  }

  /** Move the deadline of the term; returns false if the term is over, since no answer revives a term. */
  extend(deadline) {
    if (this.#ended || now() >= this.#deadline) return false;
    this.#deadline = deadline;
    const quarter = Math.max(deadline - now(), 0) / 4;
    this.#reserve = Math.max(this.#reserve, Math.min(this.stopBefore, quarter)); // a later answer must not shrink it
    this.#stopAt = deadline - this.#reserve;
    return true;
  }

  end() {
    this.#ended = true;
  }
}

/** Check an answer to a GET /is-leader/NAME that was sent at `sentAt`; returns null for an invalid answer. */
export function parse(text, name, sentAt) {
  let reply;
  try {
    reply = JSON.parse(text);
  } catch {
    return null;
  }
  if (reply === null || typeof reply !== "object") return null;
  const { lease, is_leader: leads, instance_id: id, holder, token, expires_in: left, state, version } = reply;
  if (lease !== name || typeof leads !== "boolean" || typeof id !== "string" || id === "") return null;
  if (typeof state !== "string" || typeof version !== "string") return null;
  if (holder !== null && typeof holder !== "string") return null;
  if (!leads) return token === null && left === null ? { ...reply, token: null, deadline: null } : null;
  if (!Number.isSafeInteger(token) || token <= 0 || holder !== id) return null;
  if (typeof left !== "number" || !(left > 0 && left <= LONGEST_GRANT)) return null;
  return { ...reply, deadline: sentAt + left };
}

export class LeaseClient {
  #agent = new http.Agent({ keepAlive: true });
  #client = randomBytes(8).toString("hex"); // new at each start: an earlier process's late resign must not count
  #sent = 0;
  #running = new Set(); // names of the leases with an active run()

  /** `stopBefore`: seconds between the request to stop the work and the deadline; at most a quarter of the grant. */
  constructor(url = "http://127.0.0.1:4040", { stopBefore = 0.5 } = {}) {
    this.url = new URL(url);
    this.stopBefore = stopBefore;
  }

  /**
   * Campaign, and run `work(term, signal)` whenever this process leads, until `signal` of the options is aborted.
   *
   * The work's signal is aborted at the end of the term. The client resigns after the work has ended. If the work ends
   * before the end of its term, `run` returns its result or throws its error. If the work throws TermOver after the end of
   * its term, `run` campaigns again. A second `run` for the same lease is refused while the first `run` is active.
   */
  async run(name, work, { signal = new AbortController().signal } = {}) {
    if (this.#running.has(name)) throw new Error(`run() is already active for ${name}`);
    this.#running.add(name);
    try {
      return await this.#campaign(name, work, signal);
    } finally {
      this.#running.delete(name);
    }
  }

  async #campaign(name, work, signal) {
    let version = null;
    let token = null;
    let resigned = false;
    while (!signal.aborted) {
      const answer = await this.#ask(name, version === null ? {} : { wait: WAIT, version }, token, WAIT + LIMIT, signal);
      if (answer === null) {
        version = null;
        await pause(signal);
        continue;
      }
      version = answer.version;
      if (answer.token === null) continue;
      const term = new Term(answer, this.stopBefore);
      if (term.workingTime() <= 0) {
        version = null; // the answer came too late
        continue;
      }
      token = term.token;
      const { own, value } = await this.#lead(term, version, work, signal);
      if (own) return value;
      resigned = signal.aborted;
      version = null;
    }
    if (!resigned) await this.#resign(name, null); // this process no longer wants the lease
    return undefined;
  }

  async #lead(term, version, work, signal) {
    const stop = new AbortController();
    const asking = new AbortController();
    let own = true;
    const job = (async () => work(term, stop.signal))();
    const stopped = (error) => error instanceof TermOver && term.remaining() <= 0;
    const ended = job.then(() => true, (error) => !stopped(error));
    try {
      const over = [this.#prolong(term, version, asking.signal), expired(term, asking.signal), aborted(signal, asking.signal)];
      own = await Promise.race([ended, Promise.race(over).then(() => false)]);
      stop.abort();
      asking.abort(); // a request would campaign while the work ends
      await ended;
      if (own) return { own, value: await job };
      return { own, value: undefined };
    } finally {
      term.end();
      await this.#resign(term.name, own || signal.aborted ? null : term.token);
    }
  }

  /** Extend the term with each answer; returns when the term is over. */
  async #prolong(term, version, signal) {
    while (term.workingTime() > 0 && !signal.aborted) {
      const wait = Math.min(WAIT, Math.max(term.workingTime() / 3, 0.001));
      const hold = version === null ? {} : { wait: wait.toFixed(3), version };
      const answer = await this.#ask(term.name, hold, term.token, Math.min(2 * wait, wait + LIMIT), signal);
      if (signal.aborted) return;
      if (answer === null) {
        version = null;
        await sleep(Math.min(0.1, term.workingTime() / 4) * 1000);
        continue;
      }
      if (answer.token !== term.token || answer.instance_id !== term.holder) return;
      version = answer.version;
      if (!term.extend(answer.deadline)) return;
    }
  }

  /** Send one request; returns null if no valid answer came in `within` seconds (without `wait`: in `LIMIT` at most). */
  async #ask(name, query, token, within, signal) {
    this.#sent = Math.max(this.#sent + SPACING, now()); // reserved before the pause: another lease's run() may ask meanwhile
    await sleep(Math.max(this.#sent - now(), 0) * 1000);
    const words = new URLSearchParams(token === null ? query : { ...query, token });
    const sentAt = now();
    const limit = "wait" in query ? within : Math.min(within, LIMIT);
    const text = await this.#request("GET", `/is-leader/${encodeURIComponent(name)}?${words}`, limit, signal);
    return text === null ? null : parse(text, name, sentAt);
  }

  /** Report that the work has stopped. A missing sidecar is no error: the lease moves when the grant expires. */
  async #resign(name, token) {
    const path = `/resign/${encodeURIComponent(name)}${token === null ? "" : `?token=${token}`}`;
    if ((await this.#request("POST", path, LIMIT)) === null) await this.#request("POST", path, LIMIT);
  }

  async #request(method, path, limit, signal) {
    if (signal?.aborted) return null; // an aborted signal fires no event
    return new Promise((resolve) => {
      const headers = { "X-Lease-Client": this.#client };
      const hostname = this.url.hostname.replace(/^\[|\]$/g, ""); // an IPv6 address has brackets only in a URL
      const { port } = this.url;
      const request = http.request({ method, hostname, port, path, headers, agent: this.#agent }, (response) => {
        let text = "";
        response.setEncoding("utf8");
        response.on("data", (chunk) => {
          text += chunk;
          if (text.length > LONGEST_ANSWER) end(null);
        });
        response.on("end", () => end(response.statusCode === 200 && response.complete ? text : null));
        response.on("error", () => end(null));
      });
      const end = (result) => {
        clearTimeout(timer);
        signal?.removeEventListener("abort", cancel);
        if (result === null) request.destroy();
        resolve(result);
      };
      const cancel = () => end(null);
      const timer = setTimeout(cancel, limit * 1000);
      signal?.addEventListener("abort", cancel);
      request.on("error", () => end(null));
      request.end();
    });
  }
}

async function pause(signal) {
  await sleep(100 + 400 * Math.random(), undefined, { signal }).catch(() => {});
}

/** Resolve when the term's working time is over. Each answer moves that time, so the loop checks the clock repeatedly. */
async function expired(term, signal) {
  while (term.workingTime() > 0 && !signal.aborted) await sleep(Math.min(term.workingTime(), TICK) * 1000);
}

/** Resolve when `signal` is aborted. The listener is removed when `until` is aborted. */
function aborted(signal, until) {
  if (signal.aborted) return Promise.resolve();
  return new Promise((resolve) => signal.addEventListener("abort", resolve, { once: true, signal: until }));
}
