// Figures as words.

const UNITS = ["B", "KiB", "MiB", "GiB", "TiB"];

export function bytes(count) {
  let unit = 0;
  while (count >= 1024 && unit < UNITS.length - 1) [count, unit] = [count / 1024, unit + 1];
  return `${count.toFixed(unit && count < 100 ? 1 : 0)} ${UNITS[unit]}`;
}

export const speed = (count) => `${bytes(count)}/s`;
export const percent = (share) => `${(100 * share).toFixed(share < 0.1 ? 1 : 0)}%`;
export const plural = (count, word) => `${count} ${word}${count === 1 ? "" : "s"}`;
export const short = (digest) => digest.replace(/^sha256:/, "").slice(0, 12);
export const clock = new Intl.DateTimeFormat(undefined, { timeStyle: "medium", hourCycle: "h23" });

export function duration(seconds) {
  for (const [length, letter] of [[86400, "d"], [3600, "h"], [60, "min"]]) {
    if (seconds >= length) return `${Math.floor(seconds / length)} ${letter}`;
  }
  return `${Math.max(0, Math.floor(seconds))} s`;
}
