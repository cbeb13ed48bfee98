// Shows what orlopd tells: asks for /v1/state every two seconds while somebody looks, and follows
// /v1/events. Whatever containers, images and events are called is text here, never markup.

const PERIOD = 2000;
const WINDOW = 300; // seconds that plots show at most, and at first
const FIRST_WINDOW = 60;
const GAP = 3.5 * PERIOD / 1000; // what is farther apart is not joined by a line
const EVENTS_KEPT = 200;
const CALM = 700; // milliseconds in which more changes of images may come
const SILENCE = 40_000; // milliseconds without a heartbeat after which a stream is dead
const SVG = "http://www.w3.org/2000/svg";

const $ = (id) => document.getElementById(id);

// Elements

function make(tag, properties = {}, ...children) {
  const { dataset, attributes, ...rest } = properties;
  const node = Object.assign(document.createElement(tag), rest);
  Object.assign(node.dataset, dataset);
  for (const [name, value] of Object.entries(attributes ?? {})) node.setAttribute(name, value);
  node.append(...children);
  return node;
}

function setText(node, text) {
  if (node.textContent !== text) node.textContent = text;
}

function setAttribute(node, name, value) {
  if (node.getAttribute(name) !== value) node.setAttribute(name, value);
}

// Puts nodes into this order, and moves none that is there already: focus and selection stay.
function arrange(parent, nodes) {
  const wanted = new Set(nodes);
  for (const child of [...parent.children]) if (!wanted.has(child)) child.remove();
  nodes.forEach((node, place) => {
    const there = parent.children[place];
    if (there !== node) parent.insertBefore(node, there ?? null);
  });
}

// Words

const UNITS = ["B", "KiB", "MiB", "GiB", "TiB"];

function bytes(count) {
  let unit = 0;
  while (count >= 1024 && unit < UNITS.length - 1) [count, unit] = [count / 1024, unit + 1];
  return `${count.toFixed(unit && count < 100 ? 1 : 0)} ${UNITS[unit]}`;
}

const speed = (count) => `${bytes(count)}/s`;
const percent = (share) => `${(100 * share).toFixed(share < 0.1 ? 1 : 0)}%`;
const plural = (count, word) => `${count} ${word}${count === 1 ? "" : "s"}`;
const short = (digest) => digest.replace(/^sha256:/, "").slice(0, 12);
const clock = new Intl.DateTimeFormat(undefined, { timeStyle: "medium", hourCycle: "h23" });

function duration(seconds) {
  for (const [length, letter] of [[86400, "d"], [3600, "h"], [60, "min"]]) {
    if (seconds >= length) return `${Math.floor(seconds / length)} ${letter}`;
  }
  return `${Math.max(0, Math.floor(seconds))} s`;
}

// Plots: some minutes of one or two values, which this page has collected

class History {
  constructor() {
    this.points = [];
  }

  add(at, ...values) {
    this.points.push([at, ...values]);
    const first = this.points.findIndex(([when]) => when >= at - WINDOW - GAP);
    if (first > 0) this.points.splice(0, first);
  }

  most(index) {
    return this.points.reduce((most, point) => Math.max(most, point[index]), 0);
  }
}

class Plot {
  constructor(kind, title, lines = 1) {
    this.title = title;
    this.area = this.path("area");
    this.lines = Array.from({ length: lines }, (_, line) => this.path(line ? "line second" : "line"));
    this.node = document.createElementNS(SVG, "svg");
    const fixed = { class: `plot ${kind}`, viewBox: "0 0 300 100", preserveAspectRatio: "none", role: "img" };
    for (const [name, value] of Object.entries(fixed)) this.node.setAttribute(name, value);
    this.node.append(this.area, ...this.lines);
  }

  path(name) {
    const node = document.createElementNS(SVG, "path");
    node.setAttribute("class", name);
    return node;
  }

  // `top` is the value at the upper edge.
  draw(history, now, top, words) {
    const span = windowAt(now);
    const x = (at) => (300 * (1 - (now - at) / span)).toFixed(1);
    const y = (value) => (97 - 92 * Math.min(1, value / (top || 1))).toFixed(1);
    this.lines.forEach((line, index) => {
      const runs = joined(history.points).map((run) => run.map((p) => `${x(p[0])} ${y(p[1 + index])}`));
      line.setAttribute("d", runs.map((run) => `M${run.join("L")}`).join(""));
      if (index === 0) this.fill(runs);
    });
    setAttribute(this.node, "aria-label", `${this.title}, last ${duration(span)}: ${words}`);
  }

  fill(runs) {
    const feet = (run) => [run.at(0), run.at(-1)].map((point) => `${point.split(" ")[0]} 100`);
    const areas = runs.map((run) => [feet(run), run]).map(([[left, right], run]) => `M${left}L${run.join("L")}L${right}Z`);
    this.area.setAttribute("d", areas.join(""));
  }
}

// Wide open at first, so that there is something to see, and as wide as there is something.
let opening = 0;
function windowAt(now) {
  opening ||= now;
  return Math.min(WINDOW, Math.max(FIRST_WINDOW, now - opening));
}

function joined(points) {
  const runs = [];
  points.forEach((point, place) => {
    if (place && point[0] - points[place - 1][0] <= GAP) runs.at(-1).push(point);
    else runs.push([point]);
  });
  return runs;
}

// The four tiles

class Tile {
  constructor(kind, title, lines) {
    this.value = make("p", { className: "value", textContent: "–" });
    this.more = make("p", { className: "more" });
    this.history = new History();
    this.plot = new Plot(kind, title, lines);
    this.node = make("section", { className: "tile" }, make("h2", { textContent: title }), this.value, this.more, this.plot.node);
  }

  // Before the second look no rate is known, and so none is plotted.
  show(at, values, known, top, value, more) {
    if (known) this.history.add(at, ...values);
    setText(this.value, value);
    setText(this.more, more);
    const most = Math.max(...values.map((_, index) => this.history.most(1 + index)));
    this.plot.draw(this.history, at, Math.max(top, most), `now ${value}`);
  }
}

const tiles = {
  cpu: new Tile("cpu", "Processor"),
  memory: new Tile("memory", "Memory"),
  net: new Tile("net", "Network", 2),
};
const states = { running: make("span", { className: "value" }), list: make("p", { className: "states" }) };

function furnishTiles() {
  const first = make("section", { className: "tile" }, make("h2", { textContent: "Running" }),
    make("p", {}, states.running), states.list);
  $("tiles").append(first, ...Object.values(tiles).map((tile) => tile.node));
}

function showTiles(state, rows, first) {
  const sum = (name) => rows.reduce((total, row) => total + row.now[name], 0);
  const { cpus, memory } = state.host;
  tiles.cpu.show(state.at, [sum("cpu")], !first, 0.1 * cpus, percent(sum("cpu") / cpus), `of ${plural(cpus, "processor")}`);
  tiles.memory.show(state.at, [sum("memory")], true, 0, bytes(sum("memory")), `of ${bytes(memory)}`);
  const [received, sent] = [sum("received"), sum("sent")];
  tiles.net.show(state.at, [received, sent], !first, 1024, speed(received + sent), `↓ ${speed(received)}  ↑ ${speed(sent)}`);
  const counts = Map.groupBy(state.containers, (each) => each.state);
  setText(states.running, `${counts.get("running")?.length ?? 0}`);
  const others = [...counts].filter(([word]) => word !== "running").sort();
  states.list.replaceChildren(...others.map(([word, found]) => stateMark(word, `${found.length} ${word}`)));
}

function stateMark(word, text) {
  return make("span", { className: "state", dataset: { state: word } },
    make("span", { className: "dot", attributes: { "aria-hidden": "true" } }), text);
}

// The table of containers

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

function cell(title, className = "") {
  return make("td", { className, dataset: { title }, attributes: { role: "cell" } });
}

function furnishHead() {
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

function arrangeRows() {
  const text = $("filter").value.trim().toLowerCase();
  const { by } = order.column;
  const compare = (a, b) => (by(a) < by(b) ? -1 : by(a) > by(b) ? 1 : 0) * (order.descending ? -1 : 1);
  const names = (a, b) => a.told.name.localeCompare(b.told.name);
  const shown = [...rows.values()].filter((row) => row.matches(text)).sort((a, b) => compare(a, b) || names(a, b));
  arrange($("containers-rows"), shown.map((row) => row.node));
  $("containers-empty").hidden = shown.length > 0;
  setText($("containers-empty"), rows.size ? "No container is like this." : "No containers: orlop run makes one.");
}

function showContainers(state) {
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

// Pulls

const pulls = new Map();

class Pull {
  constructor() {
    this.title = make("span", { className: "name" });
    this.figures = make("span", { className: "under" });
    this.bar = make("progress");
    this.parts = make("ul", { className: "parts", attributes: { role: "list" } });
    this.layers = new Map();
    this.node = make("li", {}, make("div", { className: "pull-head" }, this.title, this.figures), this.bar, this.parts);
  }

  show(told, at) {
    setText(this.title, told.name);
    this.bar.setAttribute("aria-label", `Pull of ${told.name}`);
    advance(this.bar, told.done, told.total);
    const passed = at - (this.at ?? at);
    if (passed > 0) this.rate = Math.max(0, told.done - this.done) / passed;
    [this.at, this.done] = [at, told.done];
    const total = told.total ? `${bytes(told.done)} of ${bytes(told.total)}` : told.state;
    setText(this.figures, [total, this.rate && speed(this.rate)].filter(Boolean).join(" · "));
    arrange(this.parts, told.layers.map((layer) => this.layer(layer)));
  }

  layer(told) {
    let layer = this.layers.get(told.digest);
    if (!layer) {
      layer = { state: make("span"), bar: make("progress") };
      layer.bar.setAttribute("aria-label", `Layer ${short(told.digest)}`);
      layer.node = make("li", {}, make("div", { className: "figures" },
        make("code", { textContent: short(told.digest), title: told.digest }), layer.state), layer.bar);
      this.layers.set(told.digest, layer);
    }
    setText(layer.state, told.state === "downloading" ? `${bytes(told.done)} of ${bytes(told.total)}` : told.state);
    advance(layer.bar, told.done, told.total);
    return layer.node;
  }
}

function advance(bar, done, total) {
  if (!total) {
    bar.removeAttribute("value");
    return;
  }
  bar.max = total;
  bar.value = done;
}

function showPulls(state) {
  const written = state.writes.map((each) => ({ ...each, name: each.ref, began: 0, state: bytes(each.done), layers: [] }));
  const told = [...state.pulls, ...written];
  const keys = told.map((each) => `${each.began} ${each.namespace} ${each.name}`);
  for (const key of pulls.keys()) if (!keys.includes(key)) pulls.delete(key);
  const nodes = told.map((each, place) => {
    if (!pulls.has(keys[place])) pulls.set(keys[place], new Pull());
    const pull = pulls.get(keys[place]);
    pull.show(each, state.at);
    return pull.node;
  });
  arrange($("pulls-list"), nodes);
  $("pulls-empty").hidden = told.length > 0;
  setText($("pulls-count"), told.length ? `${told.length}` : "");
}

// Images

const HUES = 8;
const hues = new Map(); // of the layers that several images have, once and for all
const imageRows = new Map();

async function showImages() {
  const told = await ask("/v1/images");
  imagesStale ||= paused;
  if (paused) return;
  const manySpaces = new Set(told.images.map((each) => each.namespace)).size > 1;
  const hueOf = (digest) => {
    if (told.layers[digest].images < 2) return "";
    if (!hues.has(digest)) hues.set(digest, `hue${hues.size % HUES}`);
    return hues.get(digest);
  };
  const keys = told.images.map((image) => `${image.namespace}/${image.name}`);
  for (const key of imageRows.keys()) if (!keys.includes(key)) imageRows.delete(key);
  arrange($("images-rows"), told.images.map((image, place) => {
    const layers = image.layers.map((digest) => ({ digest, hue: hueOf(digest), ...told.layers[digest] }));
    return keptRow(keys[place], image, layers, manySpaces);
  }));
  setText($("images-count"), `${told.images.length}`);
  setText($("images-size"), told.images.length ? `${bytes(told.size)} together` : "");
  $("images-empty").hidden = told.images.length > 0;
}

// The row of an image of which nothing new is told stays; a new one is as open as the old one.
function keptRow(key, image, layers, manySpaces) {
  const state = JSON.stringify([image, layers, manySpaces]);
  const known = imageRows.get(key);
  if (known?.state === state) return known.node;
  const node = imageRow(image, layers, manySpaces);
  if (known) {
    node.querySelector("details").open = known.node.querySelector("details").open;
    const focused = known.node.contains(document.activeElement);
    if (focused) requestAnimationFrame(() => node.querySelector("summary").focus());
  }
  imageRows.set(key, { state, node });
  return node;
}

function imageRow(image, layers, manySpaces) {
  const size = cell("Size", "number");
  const unique = cell("Not shared", "number");
  size.append(image.whole ? bytes(image.size) : `${bytes(image.size)}, incomplete`);
  unique.append(bytes(image.unique));
  const under = [manySpaces && image.namespace, short(image.digest)].filter(Boolean).join(" · ");
  const name = make("td", { attributes: { role: "rowheader" } },
    make("div", { className: "name", textContent: image.name }), make("div", { className: "under", textContent: under }));
  const parts = make("td", { attributes: { role: "cell" } }, strip(layers), layerList(layers));
  return make("tr", { attributes: { role: "row" } }, name, size, unique, parts);
}

function strip(layers) {
  const node = make("div", { className: "strip", attributes: { "aria-hidden": "true" } });
  for (const layer of layers) {
    const part = make("span", { className: layer.hue, title: `${short(layer.digest)}, ${bytes(layer.size)}, ${where(layer)}` });
    part.style.flexGrow = layer.size;
    node.append(part);
  }
  return node;
}

const where = ({ images }) => (images > 1 ? `in ${images} images` : "only here");

function layerList(layers) {
  const common = layers.filter(({ images }) => images > 1).length;
  const list = make("ol", { className: "layers", attributes: { role: "list" } });
  for (const layer of layers) {
    list.append(make("li", {},
      make("span", { className: `swatch ${layer.hue}`, attributes: { "aria-hidden": "true" } }),
      make("code", { className: "grow", textContent: short(layer.digest), title: layer.digest }),
      make("span", { textContent: where(layer) }), make("span", { textContent: bytes(layer.size) })));
  }
  const summary = make("summary", { textContent: `${plural(layers.length, "layer")}${common ? `, ${common} shared` : ""}` });
  return make("details", {}, summary, list);
}

// Asks again a little later, for many events come together; what nobody would see waits.
let imagesStale = false;
let imagesDue = false;

async function imagesChanged(calm = CALM) {
  imagesStale = true;
  if (imagesDue || paused || document.hidden) return;
  imagesDue = true;
  await pause(calm);
  if (!paused && !document.hidden) {
    imagesStale = false;
    await showImages().catch(lost);
  }
  imagesDue = false;
  catchUp();
}

function catchUp() {
  if (imagesStale) imagesChanged();
}

// Events

let waiting = [];
let drawing = false;

function takeEvent(event) {
  waiting.push(event);
  waiting = waiting.slice(-EVENTS_KEPT);
  if (/^\/(images|content)\//.test(event.topic ?? "")) imagesChanged();
  if (paused || drawing) return;
  drawing = true;
  requestAnimationFrame(showEvents);
}

function showEvents() {
  drawing = false;
  if (paused || !waiting.length) return;
  const news = waiting.reverse();
  waiting = [];
  const list = $("events-list");
  list.prepend(...news.map(eventItem));
  while (list.children.length > EVENTS_KEPT) list.lastChild.remove();
  $("events-empty").hidden = true;
}

function eventItem(event) {
  if (event.skipped) return make("li", {}, make("span"), make("span", { className: "topic", textContent: `${plural(event.skipped, "event")} came at once and were left out` }));
  const topic = event.topic.slice(1).replaceAll("/", " ");
  const what = make("span", { className: "what" }, make("span", { className: "topic", textContent: topic }), " ", make("strong", { textContent: event.subject ?? "" }));
  if (event.exec) what.append(" ", make("span", { className: "under", textContent: event.exec }));
  if (event.status !== undefined) what.append(make("span", { className: event.status ? "failed" : "topic", textContent: ` status ${event.status}` }));
  return make("li", {}, timeOf(event.at), what);
}

// Who forwards an event says when it was, and may say nonsense.
function timeOf(at) {
  const when = new Date(1000 * at);
  if (Number.isNaN(when.getTime())) return make("span", { className: "time", textContent: `${Math.round(at)}` });
  return make("time", { className: "time", dateTime: when.toISOString(), textContent: clock.format(when) });
}

// A stream of server-sent events by fetch: EventSource could not send a token. A browser has six
// connections for all its tabs: those that nobody sees leave theirs to the others.
let stream = new AbortController();

async function follow() {
  for (;;) {
    await seen();
    try {
      const response = await request("/v1/events", beginStream);
      setText($("events-note"), "");
      imagesChanged(); // what happened meanwhile was not told
      await readStream(response.body.getReader());
    } catch (error) {
      if (error instanceof Refused) {
        setText($("events-note"), error.message);
        imagesChanged();
      }
    }
    await pause(PERIOD);
  }
}

function beginStream() {
  stream = new AbortController();
  if (document.hidden) stream.abort();
  return stream.signal;
}

// Resolves once somebody can see the page.
function seen() {
  return new Promise((resolve) => {
    const check = () => {
      if (document.hidden) return;
      document.removeEventListener("visibilitychange", check);
      resolve();
    };
    document.addEventListener("visibilitychange", check);
    check();
  });
}

async function readStream(reader) {
  const decoder = new TextDecoder();
  let text = "";
  for (;;) {
    const alarm = setTimeout(() => stream.abort(), SILENCE);
    const { value, done } = await reader.read().finally(() => clearTimeout(alarm));
    if (done) return;
    const blocks = (text + decoder.decode(value, { stream: true })).split("\n\n");
    text = blocks.pop();
    for (const block of blocks) if (block.startsWith("data: ")) takeEvent(JSON.parse(block.slice(6)));
  }
}

const pause = (milliseconds) => new Promise((resolve) => setTimeout(resolve, milliseconds));

// Asking

class Refused extends Error {}

let token = sessionStorage.getItem("token") ?? "";

// `signal` makes what aborts one try: who types a token has all the time there is.
async function request(path, signal) {
  const told = token;
  const headers = told ? { Authorization: `Bearer ${told}` } : {};
  const response = await fetch(path, { headers, signal: signal(), cache: "no-store" });
  if (response.status === 401) {
    await knock(told);
    return request(path, signal);
  }
  if (!response.ok) throw new Refused((await response.text()).trim());
  return response;
}

async function ask(path) {
  return (await request(path, () => AbortSignal.timeout(10_000))).json();
}

// All that meet the closed door wait for the same answer.
let knocking = null;
function knock(refused) {
  if (refused !== token) return Promise.resolve(); // somebody has told another one meanwhile
  setText($("door-wrong"), refused ? "That is not the token." : "");
  knocking ??= new Promise((resolve) => {
    $("door").showModal();
    $("door-form").addEventListener("submit", (event) => {
      event.preventDefault();
      token = $("door-token").value.trim();
      sessionStorage.setItem("token", token);
      $("door-token").value = "";
      knocking = null;
      $("door").close();
      resolve();
    }, { once: true });
  });
  return knocking;
}

// Browsers let nobody hold a dialog open against a second Escape; without a token there is no page.
function keepDoor() {
  if (knocking && !$("door").open) $("door").showModal();
}

// The pulse

let paused = false;
let pulse = 0;
let asking = false;

async function look() {
  clearTimeout(pulse);
  if (paused || document.hidden || asking) return;
  asking = true;
  try {
    show(await ask("/v1/state"));
    connection("live", "live");
  } catch (error) {
    lost(error);
  } finally {
    asking = false;
    pulse = setTimeout(look, PERIOD);
  }
}

function show(state) {
  if (paused) return;
  setText($("host"), state.host.name);
  document.title = `orlop on ${state.host.name}`;
  $("host").title = `orlopd ${state.host.version}`;
  showContainers(state);
  showPulls(state);
}

function lost(error) {
  connection("lost", error instanceof Refused ? error.message : "orlopd does not answer");
}

function connection(state, text) {
  const link = $("link");
  if (paused && state !== "paused") return;
  if (link.dataset.state === state && $("link-text").textContent === text) return;
  if (state === "lost" || link.dataset.state === "lost") say(state === "live" ? "Connected again" : text);
  link.dataset.state = state;
  setText($("link-text"), text);
}

// For who listens: only what they have done, and whether the page is live.
function say(text) {
  setText($("said"), text);
}

function setPaused(now) {
  paused = now;
  $("pause").setAttribute("aria-pressed", `${now}`);
  connection(now ? "paused" : "live", now ? "paused" : "live");
  if (paused) return;
  showEvents();
  catchUp();
  look();
}

function setHidden(now) {
  if (now) {
    stream.abort();
    return;
  }
  catchUp();
  look();
}

furnishTiles();
furnishHead();
$("pause").addEventListener("click", () => setPaused(!paused));
$("filter").addEventListener("input", arrangeRows);
$("door").addEventListener("cancel", (event) => event.preventDefault());
$("door").addEventListener("close", keepDoor);
document.addEventListener("visibilitychange", () => setHidden(document.hidden));
look();
imagesChanged(0);
follow();
