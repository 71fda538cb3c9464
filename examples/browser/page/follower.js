// Follows a portfolio's live values, and reconnects whenever the stream ends.

import { Interrupted, readEvents } from "./events.js";

/** Milliseconds without a byte after which a connection counts as dead. The server sends a comment every 15 s. */
const SILENCE = 45_000;

/** Statuses that are worth a retry: too many streams, a bug, a task that stops, a database that does not answer. */
const LATER = new Set([408, 429, 500, 502, 503, 504]);

/** The reason shown if the API does not answer, or if the browser hides its answer from the page. */
export const NO_ANSWER = "no answer";

/** The reason shown if the API refuses the token, and nobody answers the request for a new token. */
export const NOT_RENEWED = "the token cannot be renewed now";

/** The API refuses the stream; a retry would not help. */
export class Refused extends Error {}

export class Follower {
  #options;
  #attempt = new AbortController();
  #stopped = false;
  #retry = 1000 + Math.random() * 9000; // in milliseconds; a `retry` from the server replaces it

  /**
   * @param {object} options
   * @param {string} options.url the address of the stream
   * @param {() => string} options.token the access token of the next connection; empty for none
   * @param {() => Promise<boolean | null>} options.renew gets a new token; false if refused, null without an answer
   * @param {(value: object) => void} options.onValue called with each value
   * @param {(state: "connecting" | "live" | "waiting", wait?: {until: number, reason: string}) => void} options.onState
   */
  constructor(options) {
    this.#options = options;
  }

  /** Follow until `stop`. Throws `Refused`. */
  async run() {
    let renewed = false; // whether the token was renewed since a stream last opened
    while (!this.#stopped) {
      const attempt = (this.#attempt = new AbortController());
      const silence = new Silence();
      let reason = "the stream has ended";
      let retryAfter = 0;
      this.#options.onState("connecting");
      try {
        const response = await this.#open(AbortSignal.any([attempt.signal, silence.signal]));
        if (response.status === 401) {
          const problem = await problemOf(response);
          const renewal = renewed ? false : await this.#options.renew();
          if (renewal === null) throw new Interrupted(NOT_RENEWED);
          if (!renewal) throw new Refused(problem);
          renewed = true;
          continue;
        }
        renewed = false;
        await this.#read(response, silence);
      } catch (error) {
        if (!(error instanceof Interrupted)) throw error;
        reason = error.message;
        retryAfter = error.retryAfter;
      } finally {
        silence.end();
      }
      if (attempt.signal.aborted) continue;
      const pause = Math.max(this.#retry, retryAfter);
      this.#options.onState("waiting", { until: Date.now() + pause, reason });
      await sleep(pause, attempt.signal);
    }
  }

  /** Reconnect now: with a new token, or because the network is back. */
  restart() {
    this.#attempt.abort();
  }

  /** End `run`. */
  stop() {
    this.#stopped = true;
    this.#attempt.abort();
  }

  async #open(signal) {
    const token = this.#options.token();
    const headers = token ? { Authorization: `Bearer ${token}` } : {};
    const response = await fetch(this.#options.url, { headers, signal, cache: "no-store" }).catch(() => {
      throw new Interrupted(NO_ANSWER);
    });
    if (response.ok || response.status === 401) return response;
    const problem = await problemOf(response);
    if (!LATER.has(response.status)) throw new Refused(problem);
    throw new Interrupted(problem, 1000 * (Number(response.headers.get("Retry-After")) || 0));
  }

  async #read(response, silence) {
    this.#options.onState("live");
    for await (const event of readEvents(response.body)) {
      silence.broken();
      if (event.retry !== undefined) this.#retry = event.retry;
      else if (event.type === "message") this.#options.onValue(JSON.parse(event.data));
    }
  }
}

/** Aborts its signal when a connection has sent nothing for too long. */
class Silence {
  #controller = new AbortController();
  #timer;

  constructor() {
    this.broken();
  }

  get signal() {
    return this.#controller.signal;
  }

  broken() {
    this.end();
    this.#timer = setTimeout(() => this.#controller.abort(), SILENCE);
  }

  end() {
    clearTimeout(this.#timer);
  }
}

/** The API's error text. */
async function problemOf(response) {
  const body = await response.json().catch(() => ({}));
  return body.error ?? `status ${response.status}`;
}

function sleep(milliseconds, signal) {
  return new Promise((resolve) => {
    const timer = setTimeout(resolve, milliseconds);
    signal.addEventListener("abort", () => {
      clearTimeout(timer);
      resolve();
    });
  });
}
