// Elements of the page.

export const $ = (id) => document.getElementById(id);

export function make(tag, properties = {}, ...children) {
  const { dataset, attributes, ...rest } = properties;
  const node = Object.assign(document.createElement(tag), rest);
  Object.assign(node.dataset, dataset);
  for (const [name, value] of Object.entries(attributes ?? {})) node.setAttribute(name, value);
  node.append(...children);
  return node;
}

export function setText(node, text) {
  if (node.textContent !== text) node.textContent = text;
}

export function setAttribute(node, name, value) {
  if (node.getAttribute(name) !== value) node.setAttribute(name, value);
}

// Puts nodes into this order, and moves none that is there already: focus and selection stay.
export function arrange(parent, nodes) {
  const wanted = new Set(nodes);
  for (const child of [...parent.children]) if (!wanted.has(child)) child.remove();
  nodes.forEach((node, place) => {
    const there = parent.children[place];
    if (there !== node) parent.insertBefore(node, there ?? null);
  });
}

// For who listens: only what they have done, and whether the page is live.
export function say(text) {
  setText($("said"), text);
}

export function cell(title, className = "") {
  return make("td", { className, dataset: { title }, attributes: { role: "cell" } });
}

export function stateMark(word, text) {
  return make("span", { className: "state", dataset: { state: word } },
    make("span", { className: "dot", attributes: { "aria-hidden": "true" } }), text);
}
