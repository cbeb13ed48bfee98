// Whether the page is live.

import { Refused } from "./asking.js";
import { $, say, setText } from "./elements.js";

export const PERIOD = 2000;
export const live = { paused: false };

export const pause = (milliseconds) => new Promise((resolve) => setTimeout(resolve, milliseconds));

export function lost(error) {
  connection("lost", error instanceof Refused ? error.message : "orlopd does not answer");
}

export function connection(state, text) {
  const link = $("link");
  if (live.paused && state !== "paused") return;
  if (link.dataset.state === state && $("link-text").textContent === text) return;
  if (state === "lost" || link.dataset.state === "lost") say(state === "live" ? "Connected again" : text);
  link.dataset.state = state;
  setText($("link-text"), text);
}
