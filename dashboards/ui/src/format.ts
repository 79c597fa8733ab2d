/** Numbers and times as people read them on a wall. */

const MINUS = "\u2212";

/** The configured names, in words. Unknown names are shown as they are, with spaces. */
const WORDS: Record<string, string> = {
  register: "Register",
  call_setup: "Call set-up",
  media_quality: "Media quality",
  edge_http: "Edge HTTP",
  messaging: "Messaging",
  ok: "OK",
  warning: "Warning",
  critical: "Critical",
  stale: "Stale",
  not_deployed: "Not deployed",
  one_way: "one-way audio",
};

export function words(name: string): string {
  return WORDS[name] ?? name.replaceAll("_", " ");
}

/** `4 s`, `3 m 12 s`, `5 h 40 m`, `12 d 3 h`: two units at most. */
export function age(seconds: number): string {
  const whole = Math.max(0, Math.floor(seconds));
  if (whole < 60) return `${whole} s`;
  if (whole < 3600) return `${Math.floor(whole / 60)} m ${pad(whole % 60)} s`;
  if (whole < 86_400) return `${Math.floor(whole / 3600)} h ${pad(Math.floor((whole % 3600) / 60))} m`;
  return `${Math.floor(whole / 86_400)} d ${Math.floor((whole % 86_400) / 3600)} h`;
}

/** A short duration with the precision that it deserves: `640 µs`, `12.4 ms`, `3.21 s`, `4 m 02 s`. */
export function span(milliseconds: number): string {
  const size = Math.abs(milliseconds);
  if (size < 1) return `${Math.round(milliseconds * 1000)} µs`;
  if (size < 100) return `${milliseconds.toFixed(1)} ms`;
  if (size < 1000) return `${Math.round(milliseconds)} ms`;
  if (size < 60_000) return `${(milliseconds / 1000).toFixed(2)} s`;
  return age(milliseconds / 1000);
}

/** A share of good events. It is cut, never rounded up: 100 % means that nothing was bad. */
export function ratio(value: number | null): string {
  if (value === null) return "\u2013";
  if (value >= 1) return "100 %";
  const digits = value >= 0.99 ? 2 : 1;
  const scale = 10 ** digits;
  // The small addend undoes binary representation (0.9999 * 100 = 99.98999...).
  return `${(Math.floor(value * 100 * scale + 1e-6) / scale).toFixed(digits)} %`;
}

/** An objective as it is written: `99.99 %`. */
export function objective(value: number): string {
  return `${Number((value * 100).toFixed(4))} %`;
}

/** A signed whole share: `-34 %`. */
export function share(value: number): string {
  const percent = Math.floor(value * 100 + 1e-6);
  return percent < 0 ? `${MINUS}${-percent} %` : `${percent} %`;
}

/** Events per second: `0.4`, `12`, `1,240`. */
export function rate(value: number): string {
  if (value >= 100) return Math.round(value).toLocaleString("en");
  if (value >= 10) return value.toFixed(0);
  return value.toFixed(1);
}

/** A burn rate: `0.2×`, `14.4×`, `620×`. */
export function burn(value: number): string {
  if (value >= 100) return `${Math.round(value).toLocaleString("en")}×`;
  return `${value.toFixed(1)}×`;
}

export function count(value: number): string {
  return value.toLocaleString("en");
}

/** Wall-clock time in this time zone: `09:41:07`. */
export function clock(at_ms: number, fraction = false): string {
  const at = new Date(at_ms);
  const text = `${pad(at.getHours())}:${pad(at.getMinutes())}:${pad(at.getSeconds())}`;
  return fraction ? `${text}.${String(at.getMilliseconds()).padStart(3, "0")}` : text;
}

export function clockUtc(at_ms: number): string {
  return new Date(at_ms).toISOString().slice(11, 19);
}

/** `09:41:07` today, `19 Nov 22:10` before. */
export function when(at_ms: number, now_ms: number): string {
  const at = new Date(at_ms);
  const today = new Date(now_ms);
  if (at.toDateString() === today.toDateString()) return clock(at_ms);
  const month = at.toLocaleString("en", { month: "short" });
  return `${at.getDate()} ${month} ${pad(at.getHours())}:${pad(at.getMinutes())}`;
}

/** A SIP or telephone URI as people say it. */
export function party(uri: string): string {
  return uri.replace(/^(?:sips?|tel):/i, "");
}

/** `1 page`, `2 pages`. */
export function plural(number: number, noun: string): string {
  return `${count(number)} ${noun}${number === 1 ? "" : "s"}`;
}

function pad(number: number): string {
  return String(number).padStart(2, "0");
}
