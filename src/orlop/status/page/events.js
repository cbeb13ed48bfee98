// Events, as they come.

import { Refused, request } from "./asking.js";
import { $, make, setText } from "./elements.js";
import { imagesChanged } from "./images.js";
import { live, pause, PERIOD } from "./live.js";
import { clock, plural } from "./words.js";

const EVENTS_KEPT = 200;
const SILENCE = 40_000; // milliseconds without a heartbeat after which a stream is dead

let waiting = [];
let drawing = false;

function takeEvent(event) {
  waiting.push(event);
  waiting = waiting.slice(-EVENTS_KEPT);
  if (/^\/(images|content)\//.test(event.topic ?? "")) imagesChanged();
  if (live.paused || drawing) return;
  drawing = true;
  requestAnimationFrame(showEvents);
}

export function showEvents() {
  drawing = false;
  if (live.paused || !waiting.length) return;
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

export async function follow() {
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

export function stopStream() {
  stream.abort();
}
