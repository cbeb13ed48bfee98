// Images, and the layers that they share.

import { ask } from "./asking.js";
import { $, arrange, cell, make, setText } from "./elements.js";
import { live, lost, pause } from "./live.js";
import { bytes, plural, short } from "./words.js";

const CALM = 700; // milliseconds in which more changes of images may come
const HUES = 8;
const hues = new Map(); // of the layers that several images have, once and for all
const imageRows = new Map();

async function showImages() {
  const told = await ask("/v1/images");
  imagesStale ||= live.paused;
  if (live.paused) return;
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

export async function imagesChanged(calm = CALM) {
  imagesStale = true;
  if (imagesDue || live.paused || document.hidden) return;
  imagesDue = true;
  await pause(calm);
  if (!live.paused && !document.hidden) {
    imagesStale = false;
    await showImages().catch(lost);
  }
  imagesDue = false;
  catchUp();
}

export function catchUp() {
  if (imagesStale) imagesChanged();
}
