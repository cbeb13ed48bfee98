// The table of containers.

import { $, arrange, cell, make, say, setText, stateMark } from "./elements.js";
import { History, Plot } from "./plots.js";
import { showTiles } from "./tiles.js";
import { bytes, duration, percent, plural, speed } from "./words.js";

const COLUMNS = [
  { title: "Container", by: (row) => row.told.name.toLowerCase() },
  { title: "State", by: (row) => row.told.state },
  { title: "Processor", by: (row) => row.now.cpu },
  { title: "Memory", by: (row) => row.now.memory },
  { title: "Network", by: (row) => row.now.received + row.now.sent },
  { title: "Disk", by: (row) => row.now.read + row.now.written, number: true },
  { title: "Processes", by: (row) => row.now.pids, number: true },
];
const RATES = ["cpu", "received", "sent", "read", "written"];
const NOTHING = { cpu: 0, memory: 0, received: 0, sent: 0, read: 0, written: 0, pids: 0 };

const order = { column: COLUMNS[0], descending: false };
const rows = new Map();
let lookedAt = 0;

// Hundreds of containers have a thousand plots: those are drawn that are on the screen.
const owners = new WeakMap();
const watcher = new IntersectionObserver((entries) => {
  for (const { target, isIntersecting } of entries) {
    const row = owners.get(target);
    row.visible = isIntersecting;
    if (isIntersecting) row.draw(lookedAt);
  }
}, { rootMargin: "200px" });

class Row {
  constructor() {
    this.now = NOTHING;
    this.use = null;
    this.histories = { cpu: new History(), memory: new History(), net: new History() };
    this.name = make("div", { className: "name" });
    this.image = make("div", { className: "under" });
    this.state = make("td", { attributes: { role: "cell" } });
    this.cpu = new Gauge("cpu", "Processor");
    this.memory = new Gauge("memory", "Memory");
    this.net = new Gauge("net", "Network", 2);
    this.disk = cell("Disk", "number");
    this.pids = cell("Processes", "number");
    this.node = make("tr", { attributes: { role: "row" } },
      make("td", { attributes: { role: "rowheader" } }, this.name, this.image), this.state,
      this.cpu.node, this.memory.node, this.net.node, this.disk, this.pids);
    this.visible = true;
    owners.set(this.node, this);
    watcher.observe(this.node);
  }

  take(told, manySpaces) {
    this.told = told;
    this.measure(told.use);
    setText(this.name, told.name);
    setText(this.image, [manySpaces && told.namespace, told.image].filter(Boolean).join(" · "));
    this.showState(told);
  }

  // Rates are what has changed since the last look; a counter that began anew has none.
  measure(use) {
    const before = this.use;
    this.use = use;
    if (!use) {
      this.now = NOTHING;
      return;
    }
    const passed = before ? use.at - before.at : 0;
    if (before && passed <= 0) return; // the same look again
    const rates = RATES.map((name) => [name, passed ? Math.max(0, use[name] - before[name]) / passed : 0]);
    this.now = { ...Object.fromEntries(rates), memory: use.memory, pids: use.pids };
    this.histories.memory.add(use.at, use.memory);
    if (!before) return;
    this.histories.cpu.add(use.at, this.now.cpu);
    this.histories.net.add(use.at, this.now.received, this.now.sent);
  }

  showState(told) {
    const mark = { exited: told.exit ? "failed" : "exited", running: told.health || "running" };
    const word = mark[told.state] ?? told.state;
    const text = told.state === "exited" ? `exited (${told.exit})` : told.state;
    const more = [told.health, told.restarts && plural(told.restarts, "restart")].filter(Boolean).join(", ");
    const key = [word, text, more].join("\n");
    if (this.shown === key) return;
    this.shown = key;
    this.more = more;
    this.since = make("div", { className: "under" });
    this.state.replaceChildren(stateMark(word === "healthy" ? "running" : word, text), this.since);
  }

  draw(at) {
    const { now, use, told, histories } = this;
    this.node.classList.toggle("idle", !use);
    const age = told.started && told.state !== "exited" ? `for ${duration(at - told.started)}` : "";
    setText(this.since, [age, this.more].filter(Boolean).join(", "));
    if (!use) {
      for (const gauge of [this.cpu, this.memory, this.net]) gauge.clear();
      for (const node of [this.disk, this.pids]) setText(node, "–");
      return;
    }
    const limit = use.memory_limit;
    this.cpu.draw(histories.cpu, at, 0.1, percent(now.cpu));
    this.memory.draw(histories.memory, at, limit || 1.25 * histories.memory.most(1), bytes(now.memory), limit ? `of ${bytes(limit)}` : "");
    this.net.draw(histories.net, at, 1024, `↓ ${speed(now.received)}`, `↑ ${speed(now.sent)}`);
    setText(this.disk, now.read || now.written ? `${speed(now.read)} read\n${speed(now.written)} written` : "–");
    setText(this.pids, `${now.pids}`);
  }

  matches(text) {
    const { name, image, state, namespace, id } = this.told;
    return [name, image, state, namespace, id].some((each) => each.toLowerCase().includes(text));
  }
}

// A cell with figures above a plot.
class Gauge {
  constructor(kind, title, lines) {
    this.value = make("span", { textContent: "–" });
    this.more = make("span", { className: "under" });
    this.plot = new Plot(kind, title, lines);
    this.node = cell(title, "plotted");
    this.node.append(make("div", { className: "figures" }, this.value, this.more), this.plot.node);
  }

  draw(history, at, top, value, more = "") {
    setText(this.value, value);
    setText(this.more, more);
    this.plot.node.toggleAttribute("hidden", false);
    this.plot.draw(history, at, Math.max(top, history.most(1)), `now ${value} ${more}`.trim());
  }

  clear() {
    setText(this.value, "–");
    setText(this.more, "");
    this.plot.node.toggleAttribute("hidden", true);
  }
}

export function furnishHead() {
  for (const column of COLUMNS) {
    const button = make("button", { type: "button", textContent: column.title });
    column.head = make("th", { scope: "col", className: column.number ? "number" : "", attributes: { role: "columnheader" } }, button);
    button.addEventListener("click", () => sortBy(column));
    $("containers-head").append(column.head);
  }
  markOrder();
}

function sortBy(column) {
  order.descending = order.column === column ? !order.descending : column !== COLUMNS[0];
  order.column = column;
  markOrder();
  arrangeRows();
  say(`Sorted by ${column.title.toLowerCase()}, ${order.descending ? "descending" : "ascending"}`);
}

function markOrder() {
  for (const { head } of COLUMNS) head.removeAttribute("aria-sort");
  order.column.head.setAttribute("aria-sort", order.descending ? "descending" : "ascending");
}

export function arrangeRows() {
  const text = $("filter").value.trim().toLowerCase();
  const { by } = order.column;
  const compare = (a, b) => (by(a) < by(b) ? -1 : by(a) > by(b) ? 1 : 0) * (order.descending ? -1 : 1);
  const names = (a, b) => a.told.name.localeCompare(b.told.name);
  const shown = [...rows.values()].filter((row) => row.matches(text)).sort((a, b) => compare(a, b) || names(a, b));
  arrange($("containers-rows"), shown.map((row) => row.node));
  $("containers-empty").hidden = shown.length > 0;
  setText($("containers-empty"), rows.size ? "No container is like this." : "No containers: orlop run makes one.");
}

export function showContainers(state) {
  const manySpaces = new Set(state.containers.map((each) => each.namespace)).size > 1;
  const found = new Set();
  for (const told of state.containers) {
    const key = `${told.namespace}/${told.id}`;
    found.add(key);
    if (!rows.has(key)) rows.set(key, new Row());
    rows.get(key).take(told, manySpaces);
  }
  for (const [key, row] of rows) {
    if (found.has(key)) continue;
    watcher.unobserve(row.node);
    rows.delete(key);
  }
  const first = lookedAt === 0;
  lookedAt = state.at;
  setText($("containers-count"), `${rows.size}`);
  setText($("containers-lost"), state.lost ? `orlopd could not look at ${plural(state.lost, "container")}: its log says why.` : "");
  arrangeRows();
  for (const row of rows.values()) if (row.visible && row.node.isConnected) row.draw(state.at);
  showTiles(state, [...rows.values()], first);
}
