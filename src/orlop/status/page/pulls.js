// Pulls, and what else is being written.

import { $, arrange, make, setText } from "./elements.js";
import { bytes, short, speed } from "./words.js";

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

export function showPulls(state) {
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
