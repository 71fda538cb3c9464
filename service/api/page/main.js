// The page requests JSON from this task once a second and shows it. It loads nothing else and sends no data.

import { JobCard } from "./jobs.js";
import { LeaseCard } from "./leases.js";
import { clock, duration, fill, set, write } from "./text.js";

const POLL = 1000; // milliseconds from an answer to the next request
const DRAW = 250; // milliseconds between two updates of the moving parts
const LIMIT = 10000; // milliseconds for an answer
const HISTORY = 5000; // milliseconds from one request for the last terms to the next, unless a lease changes
const SETTLING = 3000; // milliseconds of frequent history requests after a change: an answer may be older than the change
const SILENCE = 4; // seconds without an answer after which the page reports the silence

const leases = new Map();
const jobs = new Map();
let status = null;
let clockLead = 0; // the task's clock minus this page's, in milliseconds
let answeredAt = performance.now();
let failure = null;
let leaders = "";
let changedAt = -Infinity;
let historyAt = -Infinity;

const now = () => performance.now() + clockLead;
const silence = () => (performance.now() - answeredAt) / 1000;

async function ask(path) {
  const response = await fetch(path, { signal: AbortSignal.timeout(LIMIT), cache: "no-store", credentials: "omit" });
  if (!response.ok) {
    throw new Error(`HTTP ${response.status}`);
  }
  return response.json();
}

async function askStatus() {
  try {
    const answer = await ask("background/status");
    answeredAt = performance.now();
    clockLead = Date.parse(answer.now) - answeredAt;
    status = answer;
    failure = null;
    showStatus();
  } catch (error) {
    failure = error.name === "TimeoutError" ? "no answer in time" : error.message;
  }
  draw();
}

/** Ask for the last terms after a change of a lease, and from time to time. */
async function askHistory() {
  const asked = performance.now();
  if (status === null || failure !== null || (asked - changedAt > SETTLING && asked - historyAt < HISTORY)) {
    return;
  }
  historyAt = asked;
  let histories;
  try {
    histories = (await ask("background/history")).leases;
  } catch (error) {
    histories = Object.fromEntries([...leases.keys()].map((name) => [name, { terms: [], trouble: error.message }]));
  }
  for (const [name, history] of Object.entries(histories)) {
    leases.get(name)?.showTerms(history);
  }
}

/** Repeat a request without end, while the page is visible. */
async function repeat(request) {
  for (;;) {
    if (document.hidden) {
      await new Promise((seen) => document.addEventListener("visibilitychange", seen, { once: true }));
      answeredAt = performance.now(); // while the page was hidden, it sent no requests
    } else {
      await request();
      await new Promise((over) => setTimeout(over, POLL));
    }
  }
}

function card(cards, name, section, Card) {
  if (!cards.has(name)) {
    cards.set(name, new Card(name));
    document.getElementById(section).append(cards.get(name).parts.root);
  }
  return cards.get(name);
}

function showStatus() {
  write(document.getElementById("instance"), status.instance_id ?? "unknown");
  write(document.getElementById("version"), status.version);
  const seen = JSON.stringify(Object.values(status.leases).map((lease) => [lease.holder, lease.token, lease.state]));
  if (seen !== leaders) {
    leaders = seen;
    changedAt = performance.now();
  }
  for (const [name, lease] of Object.entries(status.leases)) {
    card(leases, name, "leases", LeaseCard).show(lease, now());
  }
  for (const [name, job] of Object.entries(status.jobs)) {
    card(jobs, name, "jobs", JobCard).show(job);
  }
}

function draw() {
  showProblems();
  if (status === null) {
    return;
  }
  write(document.getElementById("now"), clock(now(), now()));
  for (const each of [...leases.values(), ...jobs.values()]) {
    each.tick(now());
  }
}

function showProblems() {
  const silent = silence() > SILENCE;
  document.getElementById("facts").classList.toggle("old", silent);
  const found = status === null ? [] : [...status.problems];
  if (silent) {
    const why = failure === null ? "" : ` (${failure})`;
    const text = `This task has not answered for ${duration(silence())}${why}. It may have ended: open another task's page.`;
    found.unshift({ severity: "error", text: status === null ? text : `${text} What this page shows is old.` });
  } else if (status === null) {
    return;
  }
  const section = document.getElementById("problems");
  const rows = found.length ? found : [{ severity: "fine", text: "Nothing is wrong." }];
  fill(section, rows, () => document.createElement("p"), (row, { severity, text }) => {
    set(row, "className", `problem ${["error", "warning", "fine"].includes(severity) ? severity : "error"}`);
    set(row, "textContent", text);
  });
  set(document, "title", found.length ? `(${found.length}) Leases and jobs` : "Leases and jobs");
}

setInterval(draw, DRAW);
repeat(askStatus);
repeat(askHistory);
