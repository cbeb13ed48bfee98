// Plots: some minutes of one or two values, which this page has collected.

import { setAttribute } from "./elements.js";
import { PERIOD } from "./live.js";
import { duration } from "./words.js";

const WINDOW = 300; // seconds that plots show at most, and at first
const FIRST_WINDOW = 60;
const GAP = 3.5 * PERIOD / 1000; // what is farther apart is not joined by a line
const SVG = "http://www.w3.org/2000/svg";

export class History {
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

export class Plot {
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
