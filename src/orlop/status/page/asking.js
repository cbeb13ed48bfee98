// Asking orlopd, which may want a token.

import { $, setText } from "./elements.js";

export class Refused extends Error {}

let token = sessionStorage.getItem("token") ?? "";

// `signal` makes what aborts one try: who types a token has all the time there is.
export async function request(path, signal) {
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

export async function ask(path) {
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
export function keepDoor() {
  if (knocking && !$("door").open) $("door").showModal();
}
