/** Asking the server. A request without a session leads to the login page and back. */

import { signal, type Signal } from "@preact/signals";
import { useEffect, useMemo } from "preact/hooks";

import { here, redirect } from "./router";

/** What became of a question. */
export type Answer<T> =
  | { is: "waiting" }
  | { is: "here"; value: T }
  | { is: "refused"; status: number; why: string };

export function toLogin(): void {
  const next = here.value.path + here.value.query;
  redirect(next === "/" ? "/login" : `/login?next=${encodeURIComponent(next)}`);
}

export async function ask<T>(path: string, abort?: AbortSignal): Promise<Answer<T>> {
  try {
    const response = await fetch(path, { headers: { accept: "application/json" }, signal: abort ?? null });
    if (response.status === 401) {
      toLogin();
      return { is: "waiting" };
    }
    if (!response.ok) {
      const body: unknown = await response.json().catch(() => null);
      return { is: "refused", status: response.status, why: reason(body) ?? response.statusText };
    }
    return { is: "here", value: (await response.json()) as T };
  } catch (error) {
    if (abort?.aborted) return { is: "waiting" };
    return { is: "refused", status: 0, why: error instanceof Error ? error.message : "the server cannot be reached" };
  }
}

/** Changes something; why it was refused, or nothing. */
export async function change(method: "POST" | "DELETE", path: string, body?: unknown): Promise<string | undefined> {
  try {
    const response = await fetch(path, {
      method,
      headers: { accept: "application/json", "content-type": "application/json" },
      body: body === undefined ? null : JSON.stringify(body),
    });
    if (response.status === 401) toLogin();
    if (response.ok || response.status === 401) return undefined;
    const answer: unknown = await response.json().catch(() => null);
    return reason(answer) ?? response.statusText;
  } catch (error) {
    return error instanceof Error ? error.message : "the server cannot be reached";
  }
}

/** Who has scrolled down reads: then rows do not move under the eyes. */
const READING_PX = 60;

/** Asks when the component appears and whenever the path changes; keeps the old answer while waiting. */
export function useAnswer<T>(path: string, every_ms?: number): Signal<Answer<T>> {
  const answer = useMemo(() => signal<Answer<T>>({ is: "waiting" }), []);
  useEffect(() => {
    const abort = new AbortController();
    const load = async () => {
      const next = await ask<T>(path, abort.signal);
      if (!abort.signal.aborted && next.is !== "waiting") answer.value = next;
    };
    void load();
    const timer = every_ms === undefined ? undefined : setInterval(() => {
      if (!document.hidden && scrollY < READING_PX) void load();
    }, every_ms);
    return () => {
      abort.abort();
      clearInterval(timer);
    };
  }, [path, every_ms]);
  return answer;
}

function reason(body: unknown): string | undefined {
  if (typeof body !== "object" || body === null || !("error" in body)) return undefined;
  return String(body.error);
}
