// Asks the server how it is, once a second, and puts the answer on the page.
import { LatencyChart, milliseconds, percentiles, requests } from "./chart.js";

const POLL_MS = 1000, TIMEOUT_MS = 5000, TOKEN = "token";
const $ = (id) => document.getElementById(id);
const chart = new LatencyChart($("chart"), $("readout"));

const REASONS = {
  busy: "too many sessions, or too many requests waiting",
  disconnected: "a client left while its reply was due",
  internal: "the policy failed; see the server's log",
  invalid: "an observation that does not fit the contract",
  load_failed: "a checkpoint could not be loaded",
  malformed: "a frame that is no observation",
  rate: "more requests per second than a session may send",
  timeout: "an answer took longer than the server allows",
  unauthorised: "no token, or a wrong one",
};

const COLUMNS = {
  models: [
    ["Checkpoint", (m) => (m.default ? `${m.id} (default)` : m.id), "text"],
    ["State", (m) => m.state, "text"],
    ["Policy", (m) => m.type, "text"],
    ["Backend", (m) => m.backend, "text"],
    ["Precision", (m) => m.precision, "text"],
    ["Device", (m) => m.device, "text"],
    ["Trained on", (m) => m.dropped ? `${m.dataset}, ${count(m.dropped)} dropped` : m.dataset, "text"],
    ["Memory", (m) => bytes(m.nbytes)],
    ["Sessions", (m) => m.sessions],
    ["Waiting", (m) => m.waiting],
    ["Idle", (m) => (m.sessions || m.state !== "ready" ? "" : duration(m.idle_s))],
  ],
  sessions: [
    ["Session", (s) => s.name, "text"],
    ["Client", (s) => s.client, "text wide"],
    ["Checkpoint", (s) => s.model, "text"],
    ["State", (s) => s.state, "text"],
    ["Open for", (s) => duration(s.age_s)],
    ["Idle", (s) => duration(s.idle_s)],
    ["Inferences", (s) => count(s.inferences)],
    ["Errors", (s) => count(s.errors)],
    ["Task", (s) => s.task, "text wide"],
  ],
  failures: [
    ["Reason", ([reason]) => reason, "text"],
    ["Count", ([, n]) => count(n), "number"],
    ["Which means", ([reason]) => REASONS[reason], "text wide"],
  ],
};

const count = (n) => n.toLocaleString("en").replaceAll(",", "\u202f");
const clock = (date) => date.toLocaleTimeString();

function duration(seconds) {
  const s = Math.floor(seconds), pair = (a, b, ...names) => `${a}\u00a0${names[0]} ${b}\u00a0${names[1]}`;
  if (s < 60) return `${s}\u00a0s`;
  if (s < 3600) return pair(Math.floor(s / 60), s % 60, "min", "s");
  if (s < 86400) return pair(Math.floor(s / 3600), Math.floor((s % 3600) / 60), "h", "min");
  return pair(Math.floor(s / 86400), Math.floor((s % 86400) / 3600), "d", "h");
}

function bytes(n) {
  if (n == null) return "";
  const [unit, name] = [[1e9, "GB"], [1e6, "MB"], [1e3, "kB"]].find(([unit]) => n >= unit) ?? [1, "B"];
  return `${unit === 1 ? n : (n / unit).toFixed(1)}\u00a0${name}`;
}

/** Change a text only where it differs: what someone has selected stays selected. */
function say(node, text, small = "") {
  text = text == null ? "" : String(text);
  if (node.dataset.said === `${text}|${small}`) return;
  node.dataset.said = `${text}|${small}`;
  node.textContent = small ? `${text} ` : text;
  if (small) node.appendChild(document.createElement("small")).textContent = small;
}

function grow(parent, name, length) {
  while (parent.children.length > length) parent.lastElementChild.remove();
  while (parent.children.length < length) parent.appendChild(document.createElement(name));
  return [...parent.children];
}

function table(name, items) {
  const columns = COLUMNS[name];
  $(name).hidden = !items.length;
  $(`${name}-empty`).hidden = items.length > 0;
  grow($(name).tHead.rows[0], "th", columns.length).forEach((th, i) => {
    th.scope = "col";
    th.className = columns[i][2] ?? "";
    say(th, columns[i][0]);
  });
  grow($(name).tBodies[0], "tr", items.length).forEach((tr, row) => {
    grow(tr, "td", columns.length).forEach((td, i) => {
      td.dataset.label = columns[i][0];
      td.className = columns[i][2] ?? "";
      say(td, columns[i][1](items[row]));
    });
  });
}

function pill(words, kind) {
  say($("state"), words);
  $("state").className = `pill ${kind}`;
}

function banner(words, kind = "") {
  $("banner").hidden = !words;
  $("banner").className = `banner ${kind}`;
  say($("banner"), words);
}

let seen = [];

/** Inferences per second over the last polls. */
function rate(server) {
  if (seen.length && seen[0].started !== server.started) seen = [];
  seen = [...seen, server].slice(-10);
  const seconds = server.uptime_s - seen[0].uptime_s;
  return seconds > 0 ? `${((server.inferences - seen[0].inferences) / seconds).toFixed(1)} per s` : "";
}

function show({ server, models, sessions, latency, failures }) {
  const total = (key) => models.reduce((sum, model) => sum + (model[key] ?? 0), 0);
  if (server.draining) pill("draining", "");
  else if (server.ready) pill("ready", "good");
  else pill("getting ready", "");
  banner(server.draining ? "This server is going down: it answers the sessions it has and takes no more." : "");
  $("docs").hidden = !server.docs;
  say($("about"), `version ${server.version}, started ${new Date(server.started).toLocaleString()}`);
  say($("uptime"), duration(server.uptime_s));
  say($("session-count"), count(sessions.length), `of ${server.max_sessions}`);
  say($("inferences"), count(server.inferences), rate(server));
  say($("last-cost"), server.last_cost_ms == null ? "–" : milliseconds(server.last_cost_ms),
    server.last_cost_ms == null ? "" : "ms");
  say($("waiting"), count(total("waiting")), total("waiting") === 1 ? "request" : "requests");
  say($("memory"), bytes(total("nbytes")), server.memory_bytes ? `of ${bytes(server.memory_bytes)}` : "");
  const loading = models.filter((model) => model.state !== "ready").length;
  say($("models-note"), `${models.length - loading} in memory${loading ? `, ${loading} on the way` : ""}`);
  say($("sessions-note"), sessions.length ? `${sessions.length} open` : "");
  table("models", models);
  table("sessions", sessions);
  table("failures", Object.entries(failures).filter(([, n]) => n).sort(([, a], [, b]) => b - a));
  showLatency(requests(latency));
}

function showLatency(all) {
  $("latency").hidden = !all.length;
  $("latency-empty").hidden = all.length > 0;
  say($("latency-note"), all.length ? `of the last ${count(all.length)} ${all.length === 1 ? "request" : "requests"}, inside the server` : "");
  if (!all.length) return;
  chart.show(all);
  const rows = percentiles(all);
  grow($("percentiles").tBodies[0], "tr", rows.length).forEach((tr, i) => {
    grow(tr, "td", 4).forEach((td, j) => {
      td.className = j ? "" : "text";
      say(td, rows[i][j]);
    });
  });
}

/** Show the form for the token instead of everything else. */
function ask(words) {
  pill("locked", "");
  banner("");
  $("content").hidden = true;
  if ($("token-form").hidden) {
    $("token-form").hidden = false;
    $("token").focus();
  }
  say($("token-error"), words);
}

let goneSince = null;

function gone(error) {
  goneSince ??= new Date();
  pill("not reachable", "bad");
  const why = error.name === "TimeoutError" ? "it does not answer" : error.message;
  banner(`No answer from the server since ${clock(goneSince)} (${why}). Below is what was last known; this page goes on trying.`, "bad");
  $("content").classList.add("stale");
}

async function poll() {
  const token = sessionStorage.getItem(TOKEN);
  try {
    const response = await fetch("api/v1/status", {
      cache: "no-store",
      headers: token ? { Authorization: `Bearer ${token}` } : {},
      signal: AbortSignal.timeout(TIMEOUT_MS),
    });
    if (response.status === 401) {
      sessionStorage.removeItem(TOKEN);
      goneSince = null;
      ask(token ? "The server does not take this token." : $("token-error").textContent);
      return false;
    }
    if (!response.ok) throw new Error(`HTTP ${response.status}`);
    const status = await response.json();
    goneSince = null;
    $("content").classList.remove("stale");
    $("token-form").hidden = true;
    $("content").hidden = false;
    $("forget").hidden = !token;
    show(status);
  } catch (error) {
    gone(error);
  }
  return true;
}

let timer = null;

/** Ask again and again, except while nobody looks or a token is wanted. */
async function go() {
  clearTimeout(timer);
  if (document.hidden) return;
  const again = await poll();
  clearTimeout(timer);
  if (again) timer = setTimeout(go, POLL_MS);
}

$("token-form").addEventListener("submit", (event) => {
  event.preventDefault();
  sessionStorage.setItem(TOKEN, $("token").value.trim());
  $("token").value = "";
  go();
});
$("forget").addEventListener("click", () => {
  sessionStorage.removeItem(TOKEN);
  say($("token-error"), "");
  go();
});
document.addEventListener("visibilitychange", go);

say($("address"), location.host);
say($("session-url"), `${location.protocol === "https:" ? "wss" : "ws"}://${location.host}/api/v1/session`);
go();
