// The page: signs in, and shows the live value and the state of the connection.

import { Chart } from "./chart.js";
import { Follower, NO_ANSWER, Refused } from "./follower.js";
import { Session } from "./session.js";

/** Key of the settings in the tab's session storage: the page stays signed in after a reload, in this tab only. */
const STORED = "portfolio";

const byId = (id) => document.getElementById(id);
const form = document.forms[0];
const chart = new Chart(byId("chart"), (value, digits) => money(value, digits));

let session = null;
let follower = null;
let settings = null;
let waiting = null;
let shown = null; // the value on the page

form.addEventListener("submit", (event) => {
  event.preventDefault();
  signIn(Object.fromEntries(new FormData(form)));
});
byId("sign-out").addEventListener("click", () => signOut());
addEventListener("hashchange", begin);
addEventListener("online", () => waiting && follower?.restart());
setInterval(showTimes, 250);
begin();

/** Sign in with the settings in the address or in the tab's storage, or show the form. */
function begin() {
  const given = Object.fromEntries(new URLSearchParams(location.hash.slice(1)));
  if (location.hash) {
    // The token must not stay in the address bar. A stored token is never sent to the API of a link.
    history.replaceState(null, "", location.pathname + location.search);
    end();
    fill(given);
    if (given.portfolio) signIn(Object.fromEntries(new FormData(form)));
    return;
  }
  const stored = JSON.parse(sessionStorage.getItem(STORED) ?? "null");
  if (stored) signIn(stored);
  else signOut();
}

async function signIn(wanted) {
  end();
  settings = {
    api: wanted.api.trim().replace(/\/+$/, ""),
    portfolio: wanted.portfolio.trim(),
    token: wanted.token.trim(),
  };
  sessionStorage.setItem(STORED, JSON.stringify(settings));
  byId("which").textContent = settings.portfolio;
  byId("sign-in").hidden = true;
  byId("live").hidden = false;
  shown = null;
  setText("value", "…");
  setText("change", "waiting for the first value");
  byId("change").dataset.direction = "none";
  chart.clear();

  const mine = (session = new Session(settings.token, () => {
    settings.token = mine.token;
    sessionStorage.setItem(STORED, JSON.stringify(settings));
    follower?.restart();
  }));
  await session.renew(); // a token from the form may be about to expire
  if (session !== mine) return; // signed out meanwhile
  const own = (follower = new Follower({
    url: `${settings.api}/portfolios/${encodeURIComponent(settings.portfolio)}/stream`,
    token: () => mine.token,
    renew: () => mine.renew(),
    onValue: showValue,
    onState: showState,
  }));
  try {
    await own.run();
  } catch (error) {
    if (own === follower) signOut(error instanceof Refused ? error.message : String(error));
    if (!(error instanceof Refused)) throw error;
  }
}

/** Show the form, with the reason if the API refused the stream. */
function signOut(problem = "") {
  end();
  sessionStorage.removeItem(STORED);
  byId("live").hidden = true;
  byId("sign-in").hidden = false;
  byId("problem").hidden = !problem;
  byId("problem").textContent = problem;
  form.token.value = "";
  showState("signed-out");
}

function end() {
  const ending = follower;
  follower = null;
  ending?.stop();
  session?.end();
  session = null;
}

function fill(given) {
  for (const name of ["api", "portfolio", "token"]) form[name].value = given[name] ?? form[name].defaultValue;
}

function showState(state, wait = null) {
  if (state !== "signed-out" && !follower) return; // the state of a stopped stream
  waiting = wait;
  byId("state").dataset.state = state;
  setText("state", wait ? wait.reason : state.replace("-", " "));
  if (wait?.reason === NO_ANSWER && !shown) {
    setText("change", `Does the API run, and does its CORS_ORIGINS name ${location.origin}?`);
  }
  showTimes();
}

/** Show the seconds until the next connection and until the next renewal. */
function showTimes() {
  setText("again", waiting ? `again in ${secondsTo(waiting.until)} s` : "");
  const renewal = session?.nextRenewal;
  setText("token", renewal ? `in ${clock(secondsTo(renewal))}` : "none");
}

function secondsTo(time) {
  return Math.max(0, Math.ceil((time - Date.now()) / 1000));
}

function showValue(live) {
  shown = live;
  setText("value", money(live.value));
  showChange(live);
  setText("day-open", money(live.day_open));
  setText("day-high", money(live.day_high));
  setText("day-low", money(live.day_low));
  setText("as-of", new Date(live.as_of).toLocaleTimeString());
  const priced = Number(live.priced_fraction);
  setText("prices", live.stale ? "stale" : priced < 1 ? `${(100 * priced).toFixed(1)} % priced` : "all fresh");
  byId("prices").dataset.warn = live.stale || priced < 1;
  if (live.value !== null) chart.add(Date.parse(live.as_of), Number(live.value)); // for the chart, not for sums
}

function showChange({ day_change: change, day_open: open }) {
  const amount = Number(change);
  byId("change").dataset.direction = amount > 0 ? "up" : amount < 0 ? "down" : "none";
  const percent = Number(open) ? ` (${signed((100 * amount) / Number(open))} %)` : "";
  const arrow = amount > 0 ? "▲ +" : amount < 0 ? "▼ " : "";
  setText("change", change === null ? "no prices yet" : `${arrow}${money(change)}${percent} today`);
}

/** Format an amount from the API: a decimal in a string, which a number cannot always represent exactly. */
function money(decimal, digits = 2) {
  const options = { style: "currency", currency: "USD", minimumFractionDigits: digits, maximumFractionDigits: digits };
  return decimal === null ? "–" : new Intl.NumberFormat("en-US", options).format(decimal);
}

function signed(number) {
  return `${number > 0 ? "+" : ""}${number.toFixed(2)}`;
}

function clock(seconds) {
  return `${Math.floor(seconds / 60)}:${String(seconds % 60).padStart(2, "0")}`;
}

/** Set a text only if it differs, so that a screen reader does not repeat it. */
function setText(id, text) {
  if (byId(id).textContent !== text) byId(id).textContent = text;
}
