/** When a query is evaluated: the last hours, or from one time to another, and how far its points are apart. */

/** Points of one series that are asked for: about as many as a graph is wide. */
const POINTS_WANTED = 600;
/** The server gives no more of one series. */
export const POINTS_MAX = 11_000;
/** Distances that read well, in seconds. */
const STEPS = [1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 21_600, 43_200, 86_400];

export const RANGES: [value: string, title: string][] = [
  ["15m", "last 15 m"],
  ["1h", "last hour"],
  ["6h", "last 6 h"],
  ["24h", "last 24 h"],
  ["7d", "last 7 d"],
  ["30d", "last 30 d"],
  ["90d", "last 90 d"],
];
export const RANGE_USUAL = "1h";

/** Whole seconds since the Unix epoch. */
export interface Times {
  from: number;
  to: number;
  step: number;
}

const UNITS: Record<string, number> = { ms: 0.001, s: 1, m: 60, h: 3600, d: 86_400, w: 604_800, y: 31_536_000 };

/** `1h30m` or a number of seconds; nothing when it is neither. */
export function seconds(text: string): number | null {
  if (/^\d+(?:\.\d+)?$/.test(text)) return Number(text);
  if (!/^(?:\d+(?:ms|[smhdwy]))+$/.test(text)) return null;
  let sum = 0;
  for (const [, number, unit] of text.matchAll(/(\d+)(ms|[smhdwy])/g)) sum += Number(number) * (UNITS[unit ?? ""] ?? 0);
  return sum;
}

/** The times that the address names; `now` in milliseconds. A step that would give too many points is made longer. */
export function timesOf(range: string, from: string, to: string, step: string, now: number): Times {
  const end = Number(to) || Math.floor(now / 1000);
  const start = Number(from) || end - (seconds(range) ?? seconds(RANGE_USUAL) ?? 3600);
  const span = Math.max(1, end - start);
  const usual = STEPS.find((step) => span / step <= POINTS_WANTED) ?? Math.ceil(span / POINTS_WANTED);
  const least = span / (POINTS_MAX - 1);
  const wanted = Math.max(seconds(step) || usual, least);
  return { from: Math.min(start, end), to: end, step: wanted < 1 ? wanted : Math.ceil(wanted) };
}

/** As `<input type="datetime-local">` has it, in this time zone. */
export function local(at: number): string {
  const date = new Date(at * 1000);
  const shifted = new Date(date.getTime() - date.getTimezoneOffset() * 60_000);
  return shifted.toISOString().slice(0, 19);
}
