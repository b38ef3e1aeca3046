"use strict";
// Everything from the run is put into the page as text, never as HTML.
const token = new URLSearchParams(location.search).get("token") || "";
const $ = (id) => document.getElementById(id);
const FIELDS = [...$("filter").elements].map((field) => field.name).filter(Boolean);
const count = (value) => (value === null || value === undefined ? "–" : Math.round(value).toLocaleString("en"));
const share = (value) => (value === null || value === undefined ? "–" : (100 * value).toFixed(1) + "%");
const number = (value) => (value === null || value === undefined ? "" : value.toFixed(3));

function make(tag, text, attributes = {}) {
  const element = document.createElement(tag);
  if (text !== undefined && text !== null) element.textContent = String(text);
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
  return element;
}

async function ask(path, values = {}) {
  const given = new URLSearchParams({ token, ...values });
  const answer = await fetch(path + "?" + given);
  const content = await answer.json().catch(() => ({ error: "no answer: is `steelyard serve` still running?" }));
  if (!answer.ok) throw new Error([content.error, content.remedy].filter(Boolean).join("; "));
  return content;
}

const views = {};
async function draw(name, spec) {
  const text = JSON.stringify(spec);
  if (views[name] === text || !$("chart-" + name)) return;
  views[name] = text;
  await vegaEmbed("#chart-" + name, spec, { actions: false, renderer: "svg" });
}

let preferences = null; // the specification of a histogram, for those of filters
async function refresh() {
  let again = 2000;
  try {
    const run = await ask("api/run");
    const { status, verdicts } = run;
    $("name").textContent = run.name;
    document.title = run.name + " – Steelyard";
    $("state").textContent = `${status.state}; judge ${status.judge}, protocol ${status.protocol}`;
    const { unique } = status.prompts;
    const read = status.prompts.read + status.prompts.uncommitted;
    $("progress").value = status.state === "complete" ? 1 : unique ? read / unique : 0;
    const facts = [
      [count(verdicts.pairs), "pairs with all their reads, of " + count(status.pairs.planned)],
      [count(read), "prompts read, of " + count(unique)],
      [share(verdicts.consistency), "name the same winner in both orders"],
      [share(status.work.busy_share), "of the time the engine was busy"],
      [share(status.work.hit_rate), "of tokens came from the prefix cache"],
    ];
    if (status.gpu_watt_hours !== null && status.gpu_watt_hours !== undefined) facts.push([number(status.gpu_watt_hours) + " Wh", "GPU energy"]);
    $("facts").replaceChildren(...facts.map(([value, words]) => {
      const fact = make("div");
      fact.append(make("b", value), make("span", words));
      return fact;
    }));
    $("flags").replaceChildren(...verdicts.flags.map((row) => make("option", row.flag)));
    preferences = run.charts.preferences || preferences;
    for (const [name, spec] of Object.entries(run.charts)) await draw(name, spec);
    if (["complete", "stopped", "damaged"].includes(status.state)) again = 15000;
    if (refresh.pairs !== verdicts.pairs) {
      refresh.pairs = verdicts.pairs;
      await show();
    }
  } catch (error) {
    $("state").textContent = error.message;
    again = 5000;
  }
  setTimeout(refresh, again);
}

function wanted() {
  const values = {};
  const defaults = { low: "0", high: "1", sort: "input" };
  for (const name of FIELDS) {
    const value = $("filter").elements[name].value;
    if (value !== "" && value !== defaults[name]) values[name] = value;
  }
  return values;
}

let page = 0;
let asked = 0;
async function show() {
  const mine = ++asked;
  const filter = wanted();
  // The address says what is shown: it can be kept, and opened again.
  history.replaceState(null, "", "?" + new URLSearchParams({ token }) + "#" + new URLSearchParams({ ...filter, page }));
  $("matches").textContent = "…";
  try {
    const began = performance.now();
    const answer = await ask("api/pairs", { ...filter, page });
    if (mine !== asked) return;
    const seconds = ((performance.now() - began) / 1000).toFixed(2);
    $("matches").textContent = `${count(answer.pairs)} pairs match (${seconds} s)`;
    $("page").textContent = answer.pages ? `page ${page + 1} of ${count(answer.pages)}` : "";
    $("before").disabled = page === 0;
    $("after").disabled = page + 1 >= answer.pages;
    if (preferences) {
      const spec = structuredClone(preferences);
      spec.height = 80;
      spec.data.values = answer.histogram.map((row) => ({ kind: "matching", ...row, start: row.bin / 20, stop: (row.bin + 1) / 20 }));
      spec.encoding.color.scale.domain = ["matching"];
      spec.encoding.color.legend = null;
      await draw("matching", spec);
    }
    $("rows").tBodies[0].replaceChildren(...answer.rows.map((pair) => {
      const row = make("tr");
      const open = make("button", pair.pair_id, { class: "link" });
      open.addEventListener("click", () => showPair(pair));
      const first = make("td");
      first.append(open);
      row.append(first, ...[
        pair.model_a, pair.model_b, number(pair.preference), number(pair.preference_ab),
        number(pair.preference_ba), pair.status === "ok" ? pair.winner : pair.status, pair.gold_side,
      ].map((value) => make("td", value ?? "")));
      return row;
    }));
  } catch (error) {
    if (mine === asked) $("matches").textContent = error.message;
  }
}

function textOf(value) {
  if (typeof value === "string") return value;
  return value.map((entry) => (entry.role ? `[${entry.role}] ${entry.content}` : `${entry.text} (weight ${entry.weight})`)).join("\n");
}

async function showPair(pair) {
  $("pair").hidden = false;
  $("pair-title").textContent = "Pair " + pair.pair_id;
  const body = $("pair-body");
  body.replaceChildren(make("p", "…"));
  try {
    const held = await ask("api/pair", { shard: pair.shard, row: pair.row });
    const parts = [make("p", `${pair.shard}, row ${pair.row}`, { class: "soft" })];
    const box = (title, text) => parts.push(make("div", title, { class: "soft" }), make("div", text, { class: "text", tabindex: "0" }));
    if (held.missing) parts.push(make("p", "Texts are not shown: " + held.missing, { class: "soft" }));
    for (const role of ["system", "turns", "instruction", "reference", "criteria", "turns_a", "response_a", "turns_b", "response_b"]) {
      if (held.texts[role]) {
        const side = role.slice(-1);
        const model = /_[ab]$/.test(role) ? pair["model_" + side] : null;
        const won = role === "response_" + pair.winner ? " – preferred" : "";
        box(role + (model ? ": " + model : "") + won, textOf(held.texts[role]));
      }
    }
    for (const answer of held.written || []) box(`written by ${answer.judge} (${answer.shown})`, answer.output);
    if (pair.error) parts.push(make("p", pair.error, { class: "against" }));
    body.replaceChildren(...parts);
    $("pair").scrollIntoView({ block: "nearest" });
  } catch (error) {
    body.replaceChildren(make("p", error.message, { class: "against" }));
  }
}

$("filter").addEventListener("input", () => { page = 0; clearTimeout(show.soon); show.soon = setTimeout(show, 150); });
$("filter").addEventListener("reset", () => { page = 0; setTimeout(show); });
$("filter").addEventListener("submit", (event) => event.preventDefault());
$("before").addEventListener("click", () => { page -= 1; show(); });
$("after").addEventListener("click", () => { page += 1; show(); });
$("sql").addEventListener("submit", async (event) => {
  event.preventDefault();
  $("answer-note").textContent = "…";
  try {
    const { rows, more } = await ask("api/sql", { query: $("query").value });
    const names = rows.length ? Object.keys(rows[0]) : [];
    const heading = make("tr");
    heading.append(...names.map((name) => make("th", name)));
    $("answer").tHead.replaceChildren(heading);
    $("answer").tBodies[0].replaceChildren(...rows.map((row) => {
      const line = make("tr");
      line.append(...names.map((name) => make("td", typeof row[name] === "object" && row[name] !== null ? JSON.stringify(row[name]) : row[name])));
      return line;
    }));
    $("answer-note").textContent = `${count(rows.length)} rows${more ? ", and more" : ""}`;
  } catch (error) {
    $("answer-note").textContent = error.message;
  }
});

for (const [name, value] of new URLSearchParams(location.hash.slice(1))) {
  if (name === "page") page = Number(value) || 0;
  else if (FIELDS.includes(name)) $("filter").elements[name].value = value;
}
refresh();
