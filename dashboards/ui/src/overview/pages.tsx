/** Who was rung, for what, with the evidence beside it. */

import { useSignal } from "@preact/signals";

import { change } from "../api";
import { age, clock, count, when, words } from "../format";
import { now } from "../live/live";
import { Glyph, StateMark } from "../state";
import type { CauseCount, Page } from "../wire";

/** Resolved pages shown under the open ones; the rest is in the logs. */
const RECENT_MAX = 8;

export function Pages({ pages }: { pages: Page[] }) {
  const open = pages.filter((page) => page.state === "triggered").toSorted((a, b) => b.triggered_ms - a.triggered_ms);
  const recent = pages
    .filter((page) => page.state === "resolved")
    .toSorted((a, b) => (b.resolved_ms ?? 0) - (a.resolved_ms ?? 0))
    .slice(0, RECENT_MAX);
  return (
    <section class="panel pages" aria-labelledby="pages-title">
      <header>
        <h2 id="pages-title">Pages</h2>
        <p>{open.length} open</p>
      </header>
      <div class="scroll" tabIndex={0} role="group" aria-labelledby="pages-title">
        {open.length === 0 && <p class="quiet">No page is open.</p>}
        {open.map((page) => (
          <PageCard key={page.id} page={page} />
        ))}
        {recent.length > 0 && (
          <>
            <h3>Resolved</h3>
            <ul class="resolved">
              {recent.map((page) => (
                <li key={page.id}>
                  <a href={`/pages/${encodeURIComponent(page.id)}`}>
                    {words(page.journey)} in {where(page)}
                  </a>
                  <span>{page.room}</span>
                  <span class="num">
                    {when(page.resolved_ms ?? 0, now.value)}, after{" "}
                    {age(((page.resolved_ms ?? page.triggered_ms) - page.triggered_ms) / 1000)}
                  </span>
                </li>
              ))}
            </ul>
          </>
        )}
      </div>
    </section>
  );
}

function PageCard({ page }: { page: Page }) {
  return (
    <article class="page-card is-critical" data-page={page.id}>
      <header>
        <StateMark state="critical" silent />
        <h3>
          <a href={`/pages/${encodeURIComponent(page.id)}`}>
            {words(page.journey)} in {where(page)}
          </a>
        </h3>
        <p class="num">{age((now.value - page.triggered_ms) / 1000)}</p>
      </header>
      <PageFacts page={page} />
    </article>
  );
}

/** The regions of a page, the worst first. */
export function where(page: Page): string {
  return [page.region, ...page.regions.filter((region) => region !== page.region)].join(", ");
}

/** Room at fault, cause split, examples, runbook: the same on the card and on the page's own view. */
export function PageFacts({ page }: { page: Page }) {
  return (
    <div class="page-facts">
      <p class="page-room">
        <span>at fault</span> <b>{words(page.room)}</b> <span>since {clock(page.triggered_ms)}</span>
      </p>
      <Causes causes={page.causes} />
      {page.state === "triggered" && <Handling page={page} />}
      <p class="page-links">
        {page.has_runbook && <a href={`/runbooks/${encodeURIComponent(page.alert)}`}>Runbook</a>}
        {Array.from({ length: page.examples }, (_, index) => (
          <a key={index} href={`/pages/${encodeURIComponent(page.id)}/examples/${index + 1}`}>
            Call {index + 1}
          </a>
        ))}
      </p>
    </div>
  );
}

/** Who works on it; a button for whoever begins to. */
function Handling({ page }: { page: Page }) {
  const refused = useSignal<string | undefined>(undefined);
  const path = `/api/pages/${encodeURIComponent(page.id)}/acknowledgement`;
  const set = async (method: "POST" | "DELETE") => {
    refused.value = await change(method, path, method === "POST" ? {} : undefined);
  };
  const { handled } = page;
  return (
    <p class="page-handling" aria-live="polite">
      {handled === null ? (
        <button type="button" onClick={() => void set("POST")}>
          Acknowledge
        </button>
      ) : (
        <>
          <b>{handled.state === "resolved" ? "Closed" : "Acknowledged"}</b>
          <span>
            {handled.service !== "" && `at ${handled.service} `}
            {handled.by !== null && `by ${handled.by} `}
            {when(handled.since_ms, now.value)}
          </span>
          {handled.comment !== "" && <q>{handled.comment}</q>}
          {handled.state === "acknowledged" && (
            <button type="button" onClick={() => void set("DELETE")}>
              Take back
            </button>
          )}
        </>
      )}
      {refused.value !== undefined && <span class="refused">{refused.value}</span>}
    </p>
  );
}

function Causes({ causes }: { causes: CauseCount[] }) {
  const all = causes.reduce((sum, cause) => sum + cause.count, 0);
  if (all === 0) return null;
  return (
    <ul class="causes" aria-label="Causes">
      {causes.map((cause) => (
        <li key={cause.cause}>
          <span>{words(cause.cause)}</span>
          <svg viewBox="0 0 100 10" preserveAspectRatio="none" aria-hidden="true">
            <rect width={(cause.count / all) * 100} height="10" />
          </svg>
          <span class="num">{count(cause.count)}</span>
        </li>
      ))}
    </ul>
  );
}

export function ResolvedMark() {
  return (
    <span class="mark is-ok">
      <Glyph state="ok" /> <b>Resolved</b>
    </span>
  );
}
