// Shows what orlopd tells: asks for /v1/state every two seconds while somebody looks, and follows
// /v1/events. Whatever containers, images and events are called is text here, never markup.

import { ask, keepDoor } from "./asking.js";
import { arrangeRows, furnishHead, showContainers } from "./containers.js";
import { $, setText } from "./elements.js";
import { follow, showEvents, stopStream } from "./events.js";
import { catchUp, imagesChanged } from "./images.js";
import { connection, live, lost, PERIOD } from "./live.js";
import { showPulls } from "./pulls.js";
import { furnishTiles } from "./tiles.js";

let pulse = 0;
let asking = false;

async function look() {
  clearTimeout(pulse);
  if (live.paused || document.hidden || asking) return;
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
  if (live.paused) return;
  setText($("host"), state.host.name);
  document.title = `orlop on ${state.host.name}`;
  $("host").title = `orlopd ${state.host.version}`;
  showContainers(state);
  showPulls(state);
}

function setPaused(now) {
  live.paused = now;
  $("pause").setAttribute("aria-pressed", `${now}`);
  connection(now ? "paused" : "live", now ? "paused" : "live");
  if (live.paused) return;
  showEvents();
  catchUp();
  look();
}

function setHidden(now) {
  if (now) {
    stopStream();
    return;
  }
  catchUp();
  look();
}

furnishTiles();
furnishHead();
$("pause").addEventListener("click", () => setPaused(!live.paused));
$("filter").addEventListener("input", arrangeRows);
$("door").addEventListener("cancel", (event) => event.preventDefault());
$("door").addEventListener("close", keepDoor);
document.addEventListener("visibilitychange", () => setHidden(document.hidden));
look();
imagesChanged(0);
follow();
