// A card for each lease: who leads, for how long, and how long the lease lasts unless it is renewed.

import { drawStrip, listTerms, tone } from "./timeline.js";
import { clock, clone, duration, write } from "./text.js";

const STATES = {
  waiting: "does not campaign for the lease",
  following: "follows",
  leading: "leads",
  draining: "is stopping",
  disabled: "waits, since the lease is disabled",
  guarded: "waits, since the Redis server has changed",
  disconnected: "cannot use Redis",
  unknown: "knows nothing about the lease",
};

export class LeaseCard {
  constructor(name) {
    this.parts = clone("lease");
    this.parts.name.textContent = name;
    this.longest = 1; // maximum remaining seconds in this state: the length of a full bar
    this.terms = [];
    this.trouble = null;
  }

  /** Show the lease from a status that arrived when the task's clock was at `at` milliseconds. */
  show(lease, at) {
    const before = lease.state === this.lease?.state ? this.longest : 1;
    this.longest = Math.max(before, lease.lease_remaining ?? 0);
    this.lease = lease;
    this.at = at;
    const { root, dot, holder, mine, state } = this.parts;
    const disabled = lease.state === "disabled";
    const led = lease.holder !== null && !disabled;
    const nobody = lease.state === "following" ? "Nobody leads" : "Unknown to this task";
    root.classList.toggle("bad", lease.holder === null);
    root.classList.toggle("off", disabled);
    write(holder, disabled ? "Disabled" : (lease.holder ?? nobody));
    holder.classList.toggle("id", led);
    dot.className = `dot ${led ? tone(lease.holder) : ""}`;
    mine.hidden = lease.state !== "leading";
    write(state, `This task ${STATES[lease.state] ?? `is in the state ${lease.state}`}.`);
  }

  /** Show the last terms. If they are unknown, show the reason and keep the last known terms. */
  showTerms(history) {
    this.terms = history.trouble === null ? history.terms : this.terms;
    this.trouble = history.trouble;
  }

  /** Update the parts that change with the time. `now` is the task's clock in milliseconds. */
  tick(now) {
    const { since, writer, bar, left, remaining, strip, scale, history } = this.parts;
    const seconds = this.lease.lease_remaining;
    const rest = seconds === null ? 0 : Math.max(seconds - (now - this.at) / 1000, 0);
    bar.hidden = seconds === null;
    left.style.width = `${Math.min(rest / this.longest, 1) * 100}%`;
    write(remaining, seconds === null ? "" : this.until(rest));
    write(since, this.since(now));
    write(writer, this.lastWriter(now));
    drawStrip(strip, scale, this.terms, now);
    write(history, this.about());
    listTerms(this.parts, this.terms, now);
  }

  until(seconds) {
    return this.lease.state === "disabled"
      ? `Disabled for ${duration(seconds)} more`
      : `${seconds.toFixed(1)} s until the lease ends, unless it is renewed`;
  }

  since(now) {
    const { holder, last_writer: writer, state } = this.lease;
    const [newest] = this.terms;
    if (holder === null || state === "disabled") {
      return newest?.released_at && holder === null && state === "following"
        ? `for ${duration((now - Date.parse(newest.released_at)) / 1000)}`
        : "";
    }
    if (newest?.end === "holding" && newest.holder === holder) {
      return `has led for ${duration((now - Date.parse(newest.acquired_at)) / 1000)}`;
    }
    return writer?.holder === holder ? `has led for ${duration((now - Date.parse(writer.since)) / 1000)}` : "leads";
  }

  /** The newest term in the database, if it is not the holder's. */
  lastWriter(now) {
    const { holder, last_writer: writer } = this.lease;
    return writer === null || writer.holder === holder
      ? ""
      : `The newest term in the database belongs to ${writer.holder}, since ${clock(Date.parse(writer.since), now)}.`;
  }

  about() {
    if (this.trouble !== null) {
      return `The last terms are unknown: ${this.trouble}`;
    }
    return this.terms.length === 0 ? "No term is recorded yet." : "";
  }
}
