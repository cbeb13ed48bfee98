// The four tiles.

import { $, make, setText, stateMark } from "./elements.js";
import { History, Plot } from "./plots.js";
import { bytes, percent, plural, speed } from "./words.js";

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

export function furnishTiles() {
  const first = make("section", { className: "tile" }, make("h2", { textContent: "Running" }),
    make("p", {}, states.running), states.list);
  $("tiles").append(first, ...Object.values(tiles).map((tile) => tile.node));
}

export function showTiles(state, rows, first) {
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
