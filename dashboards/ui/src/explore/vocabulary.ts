/** What there is to write in a query: metrics, functions, labels and their values, asked for when they are needed. */

import { ask } from "../api";
import { best, placeOf, type Place } from "./complete";
import type { Enveloped, FunctionJson, Metadata } from "./wire";

/** Offers that are shown at once; what is longer wants another letter. */
const OFFERS_MAX = 12;
const NAMES_MAX = 20_000;
const VALUES_MAX = 200;

export interface Offer {
  text: string;
  /** What it is, beside it. */
  note: string;
  /** What is written behind it. */
  tail: string;
}

export interface Offers {
  /** Where the word begins that an offer takes the place of. */
  from: number;
  list: Offer[];
}

const AGGREGATIONS = [
  "sum", "avg", "min", "max", "count", "group", "stddev", "stdvar", "topk", "bottomk", "quantile", "count_values",
];
const WORDS = ["by", "without", "on", "ignoring", "group_left", "group_right", "offset", "bool", "and", "or", "unless", "atan2"];
const DURATIONS = ["30s", "1m", "5m", "15m", "1h", "6h", "1d", "7d"];

const known = new Map<string, Promise<Offer[]>>();

/** Asks once; a question that failed is asked again. */
function once(key: string, load: () => Promise<Offer[] | null>): Promise<Offer[]> {
  const held = known.get(key);
  if (held) return held;
  const loading = load().then((offers) => {
    if (offers === null) known.delete(key);
    return offers ?? [];
  });
  known.set(key, loading);
  return loading;
}

async function data<T>(path: string): Promise<T | null> {
  const answer = await ask<Enveloped<T>>(`/api/explore/${path}`);
  return answer.is === "here" ? answer.value.data : null;
}

/** What can be written at the caret. */
export async function offersAt(text: string, caret: number): Promise<Offers> {
  const place = placeOf(text, caret);
  if (place.is === "nothing") return { from: caret, list: [] };
  return { from: place.from, list: best(await all(place), place.word, OFFERS_MAX) };
}

function all(place: Exclude<Place, { is: "nothing" }>): Promise<Offer[]> {
  switch (place.is) {
    case "expression":
      return expressions();
    case "label":
      return labels(place.metric);
    case "value":
      return values(place.metric, place.label);
    case "duration":
      return Promise.resolve(DURATIONS.map((text) => ({ text, note: "", tail: "" })));
  }
}

async function expressions(): Promise<Offer[]> {
  const [metrics, functions] = await Promise.all([once("metrics", metricOffers), once("functions", functionOffers)]);
  const words = WORDS.map((text) => ({ text, note: "", tail: " " }));
  const aggregations = AGGREGATIONS.map((text) => ({ text, note: "aggregation", tail: "(" }));
  return [...aggregations, ...functions, ...metrics, ...words];
}

async function functionOffers(): Promise<Offer[] | null> {
  const functions = await data<FunctionJson[]>("functions");
  return functions && functions.map((one) => ({ text: one.name, note: signature(one), tail: "(" }));
}

function signature(one: FunctionJson): string {
  return `(${one.argTypes.join(", ")})${one.isExperimental ? ", experimental" : ""}`;
}

/** What is stored, and what is known of calls, which is not. */
async function metricOffers(): Promise<Offer[] | null> {
  const [names, described] = await Promise.all([
    data<string[]>(`label/__name__/values?limit=${NAMES_MAX}`),
    data<Record<string, Metadata[]>>("metadata"),
  ]);
  if (names === null || described === null) return null;
  const about = (name: string) => described[name]?.[0] ?? described[name.replace(/_(?:bucket|sum|count)$/, "")]?.[0];
  const ofCalls = Object.keys(described).filter((name) => isOfCalls(name) && !names.includes(name));
  return [...names, ...ofCalls].sort().map((text) => ({
    text,
    note: [about(text)?.type, about(text)?.help].filter(Boolean).join(": "),
    tail: isOfCalls(text) ? '{call_id="' : "",
  }));
}

function isOfCalls(name: string): boolean {
  return name.startsWith("rtp_");
}

function labels(metric: string): Promise<Offer[]> {
  return once(`labels/${metric}`, async () => {
    if (isOfCalls(metric)) {
      return ["call_id", "leg", "region", "codec", "payload_type"].map((text) => ({ text, note: "", tail: "" }));
    }
    const found = await data<string[]>(`labels?limit=${VALUES_MAX}${matching(metric)}`);
    return found && found.filter((name) => name !== "__name__").map((text) => ({ text, note: "", tail: "" }));
  });
}

function values(metric: string, label: string): Promise<Offer[]> {
  return once(`values/${metric}/${label}`, async () => {
    if (isOfCalls(metric)) {
      const fixed = label === "leg" ? ["caller", "callee"] : [];
      return fixed.map((text) => ({ text, note: "", tail: '"' }));
    }
    const path = `label/${encodeURIComponent(label)}/values?limit=${VALUES_MAX}${matching(metric)}`;
    const found = await data<string[]>(path);
    return found && found.map((text) => ({ text: text.replaceAll("\\", "\\\\").replaceAll('"', '\\"'), note: "", tail: '"' }));
  });
}

function matching(metric: string): string {
  return metric && `&match[]=${encodeURIComponent(metric)}`;
}
