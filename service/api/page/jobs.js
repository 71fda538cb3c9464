// A card for each job: its last and its next run.

import { clock, clone, count, duration, write } from "./text.js";

const ABOUT = {
  tracker: "Values of all portfolios while the market is open",
  eod: "A row for each portfolio at the close",
  snapshot: "The last session's rows, valued at official closing prices",
  reconstruction: "Missing and stale rows of the last sessions",
};

export class JobCard {
  constructor(name) {
    this.name = name;
    this.parts = clone("job");
    this.parts.name.textContent = name;
    write(this.parts.what, ABOUT[name] ?? "");
  }

  show(job) {
    this.job = job;
  }

  /** Show the job. `now` is the task's clock in milliseconds. */
  tick(now) {
    const { bar } = this.parts;
    bar.hidden = true;
    if (this.name === "tracker") {
      this.tracker(now);
    } else {
      this.daily(now);
    }
  }

  tracker(now) {
    const { age, last, details, bar, left } = this.parts;
    const { market_open: open, last_run: run, next_run: due, loading } = this.job;
    write(age, run === null ? "" : `Last tick ${duration((now - Date.parse(run)) / 1000)} ago`);
    write(last, run === null ? "This task has not received a tick yet." : "");
    write(details, open ? "The market is open." : "The market is closed.");
    this.next("Next tick", due, now);
    if (loading !== null) {
      bar.hidden = false;
      left.style.width = `${(loading.portfolios_done / Math.max(loading.portfolios, 1)) * 100}%`;
      write(last, `Loading positions: ${count(loading.portfolios_done)} of ${count(loading.portfolios)} portfolios`);
    }
  }

  daily(now) {
    const { root, last, at: when, details } = this.parts;
    const { last_run: run, next_run: due } = this.job;
    root.classList.toggle("bad", run !== null && run.status !== "done" && run.error !== null);
    if (run === null) {
      write(last, "No run is recorded.");
      write(when, "");
      write(details, "");
    } else {
      const at = Date.parse(run.finished_at ?? run.updated_at);
      const what = run.status === "done" ? "done" : run.error === null ? "running" : "failing";
      const ago = `${duration((now - at) / 1000)} ago`;
      write(last, `${run.session_date}: ${what}, ${run.status === "done" ? ago : `last progress ${ago}`}`);
      const attempts = run.attempts > 1 ? `, ${count(run.attempts)} attempts` : "";
      const error = run.error === null ? "" : `: ${run.error}`;
      write(when, `${clock(at, now)},`);
      write(details, `${count(run.rows_written)} rows${attempts}, by ${run.holder}${error}`);
    }
    this.next("Next run", due, now);
  }

  next(what, due, now) {
    const at = due === null ? null : Date.parse(due);
    write(this.parts.next, at === null ? "" : at <= now ? `${what} now` : `${what} in ${duration((at - now) / 1000)},`);
    write(this.parts.due, at === null || at <= now ? "" : clock(at, now));
  }
}
