// The last terms of a lease: a strip over time, and a list.

import { clock, clone, duration, fill, partsOf, set, write } from "./text.js";

const SHOWN = 5; // terms that the list shows at once
const TONES = 8; // colours of holders in page.css
const LINEAR = 30; // seconds; beyond this age the scale is logarithmic, so that minutes stay visible next to days
const DAY = 86400; // seconds
const MARKS = [
  [10, "10 s"], [60, "1 min"], [600, "10 min"], [3600, "1 h"], [21600, "6 h"], [DAY, "1 d"], [7 * DAY, "7 d"], [30 * DAY, "30 d"],
];
const APART = 0.14; // share of the strip: minimum distance of two marks, and width above which a term is labelled

const tones = new Map();

/** The class that gives a holder its colour, the same in all leases. */
export function tone(holder) {
  if (!tones.has(holder)) {
    tones.set(holder, `tone${tones.size % TONES}`);
  }
  return tones.get(holder);
}

/** Times of the terms in milliseconds, newest term first. `until` is null while the term runs. */
function spans(terms, now) {
  return terms.map((term, index) => {
    const from = Date.parse(term.acquired_at);
    const next = index > 0 ? Date.parse(terms[index - 1].acquired_at) : now;
    const released = term.released_at === null ? null : Date.parse(term.released_at);
    return { term, from, until: term.end === "holding" ? null : (released ?? next) };
  });
}

/** Draw the strip and its scale. `now` is the task's clock in milliseconds. */
export function drawStrip(strip, scale, terms, now) {
  strip.hidden = scale.hidden = terms.length === 0;
  if (terms.length === 0) {
    return;
  }
  const found = spans(terms, now);
  const oldest = Math.max((now - found[found.length - 1].from) / 1000, 1);
  const place = (age) => 1 - Math.log1p(Math.max(age, 0) / LINEAR) / Math.log1p(oldest / LINEAR);
  fill(strip, found, () => document.createElement("div"), (segment, { term, from, until }) => {
    const left = place((now - from) / 1000);
    const right = place((now - (until ?? now)) / 1000);
    set(segment, "className", `segment ${tone(term.holder)} ${term.end === "not released" ? "lost" : ""}`);
    segment.style.left = `${(left * 100).toFixed(3)}%`;
    segment.style.width = `${(Math.max(right - left, 0) * 100).toFixed(3)}%`;
    set(segment, "title", `${term.holder}, from ${clock(from, now)}, ${course(term, from, until, now)}`);
    set(segment, "textContent", right - left > APART ? term.holder : "");
  });
  fill(scale, marks(oldest, place), () => document.createElement("span"), (mark, [text, at]) => {
    set(mark, "textContent", text);
    mark.style.left = `${(at * 100).toFixed(3)}%`;
  });
}

/** The marks below the strip and their places, from right to left. A mark that is too close to another is left out. */
function marks(oldest, place) {
  const found = [["now", 1]];
  for (const [age, text] of MARKS) {
    const at = place(age);
    if (age < oldest && found.at(-1)[1] - at >= APART && at >= APART / 2) {
      found.push([text, at]);
    }
  }
  return found;
}

/** Fill the lists: the newest terms, and the earlier terms behind a summary. */
export function listTerms(parts, terms, now) {
  const rows = spans(terms, now).map((span, index) => ({ ...span, earlier: terms[index + 1] }));
  const update = (row, { term, from, until, earlier }) => {
    const { dot, holder, began, course: words } = partsOf(row);
    set(row, "title", `token ${term.token}`);
    set(dot, "className", `dot ${tone(term.holder)}`);
    set(holder, "textContent", term.holder);
    set(began, "textContent", clock(from, now));
    set(began, "dateTime", term.acquired_at);
    set(words, "textContent", course(term, from, until, now) + gap(earlier, from));
  };
  const make = () => clone("term").root;
  fill(parts.recent, rows.slice(0, SHOWN), make, update);
  fill(parts.earlier, rows.slice(SHOWN), make, update);
  parts.more.hidden = rows.length <= SHOWN;
  write(parts.count, rows.length <= SHOWN ? "" : `${rows.length - SHOWN} earlier terms`);
}

/** The duration of a term and how it ended, as text. */
function course(term, from, until, now) {
  const time = duration(((until ?? now) - from) / 1000);
  switch (term.end) {
    case "holding":
      return `${time} so far`;
    case "not released":
      return `at most ${time}, not released`;
    default:
      return `${time}, released${term.reason ? ` (${term.reason})` : ""}`;
  }
}

/** Text about the time without a leader before `from`; empty below 1 s, or if the earlier term was not released. */
function gap(earlier, from) {
  const seconds = earlier?.released_at ? (from - Date.parse(earlier.released_at)) / 1000 : 0;
  return seconds >= 1 ? `; began after ${duration(seconds)} without a leader` : "";
}
