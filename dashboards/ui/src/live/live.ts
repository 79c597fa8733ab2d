/**
 * The live stream: one EventSource for the whole tab, and an honest word about how fresh the page is.
 *
 * The server sends `trend` once, then `snapshot` each second, `point` when a trend step is complete, and `heartbeat`.
 * Two missed heartbeats make the page STALE, in words, whatever the last numbers were.
 */

import { computed, signal } from "@preact/signals";

import { ask } from "../api";
import { words } from "../format";
import type { Cell, Heartbeat, Snapshot, State, Trend, TrendPoint } from "../wire";

export type Link = "connecting" | "live" | "stale";

export const snapshot = signal<Snapshot | null>(null);
export const trends = signal<ReadonlyMap<string, TrendPoint[]>>(new Map());
export const trendLength = signal(180);
/** The server's time now, to a second, from our clock and the difference that heartbeats tell. */
export const now = signal(Date.now());
export const link = signal<Link>("connecting");
/** Since when nothing was heard, by our clock. */
export const heard = signal(Date.now());
/** The latest change in words, for screen readers. */
export const announcement = signal("");

/** Seconds since the newest snapshot was made. */
export const snapshotAge = computed(() => {
  const at = snapshot.value?.at_ms;
  return at === undefined ? null : Math.max(0, (now.value - at) / 1000);
});

export const cellKey = (region: string, journey: string): string => `${region}/${journey}`;

const HEARTBEAT_MS = 2000;
const RETRY_MS = 2000;

let source: EventSource | undefined;
let clockOffset = 0;
let interval = HEARTBEAT_MS;
let built: string | undefined;

export function startLive(): void {
  if (source) return;
  open();
  setInterval(tick, 500);
}

function open(): void {
  source = new EventSource("/api/live");
  on<Snapshot>("snapshot", (next) => {
    announce(snapshot.value?.cells ?? [], next.cells);
    snapshot.value = next;
  });
  on<Trend>("trend", (trend) => {
    trendLength.value = trend.points_max;
    trends.value = new Map(trend.cells.map((cell) => [cellKey(cell.region, cell.journey), cell.points]));
  });
  on<Trend>("point", addPoints);
  on<Heartbeat>("heartbeat", (beat) => {
    interval = beat.interval_ms;
    // A wall stays open over upgrades: a page of another build would misread what the new server says.
    built ??= beat.page;
    if (built !== beat.page) location.reload();
    clockOffset = beat.at_ms - Date.now();
  });
  source.addEventListener("error", () => {
    // A refused stream (no session, drain) closes for good; a broken one reconnects by itself.
    if (source?.readyState !== EventSource.CLOSED) return;
    source = undefined;
    void ask("/api/session");
    setTimeout(() => source ?? open(), RETRY_MS);
  });
}

function on<T>(name: string, take: (value: T) => void): void {
  source?.addEventListener(name, (event) => {
    heard.value = Date.now();
    link.value = "live";
    take(JSON.parse((event as MessageEvent<string>).data) as T);
  });
}

function tick(): void {
  now.value = Date.now() + clockOffset;
  if (Date.now() - heard.value > 2 * interval + 500) {
    if (link.value === "live") announcement.value = "This page is stale: nothing is heard from the tower.";
    link.value = "stale";
  }
}

function addPoints(step: Trend): void {
  const next = new Map(trends.value);
  for (const cell of step.cells) {
    const key = cellKey(cell.region, cell.journey);
    next.set(key, [...(next.get(key) ?? []), ...cell.points].slice(-step.points_max));
  }
  trends.value = next;
}

function announce(before: Cell[], after: Cell[]): void {
  const old = new Map<string, State>(before.map((cell) => [cellKey(cell.region, cell.journey), cell.state]));
  const changes = after
    .filter((cell) => old.has(cellKey(cell.region, cell.journey)))
    .filter((cell) => old.get(cellKey(cell.region, cell.journey)) !== cell.state)
    .map((cell) => `${words(cell.journey)} in ${cell.region}: ${words(cell.state)}`);
  if (changes.length > 0) announcement.value = changes.join(". ");
}
