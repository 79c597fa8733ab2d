/** One page (of the kind that rings): what, since when, why, examples, and its runbook below. */

import { useAnswer } from "../api";
import { age, clock, when, words } from "../format";
import { now, snapshot } from "../live/live";
import { RunbookText } from "../runbooks";
import { Shell } from "../shell";
import { StateMark } from "../state";
import type { Page, Runbook } from "../wire";
import { PageFacts, ResolvedMark, where } from "./pages";

export function PageView({ id }: { id: string }) {
  const view = snapshot.value;
  const page = view?.pages.find((page) => page.id === id);
  return (
    <Shell>
      {page ? <Known page={page} /> : <Unknown waiting={view === null} id={id} />}
    </Shell>
  );
}

function Known({ page }: { page: Page }) {
  const seconds = ((page.resolved_ms ?? now.value) - page.triggered_ms) / 1000;
  return (
    <article class={`page-view ${page.state === "triggered" ? "is-critical" : "is-ok"}`}>
      <header class="title">
        <h1>
          {words(page.journey)}, {where(page)}
        </h1>
        <p>{page.state === "triggered" ? <StateMark state="critical" /> : <ResolvedMark />}</p>
        <p class="num">
          {when(page.triggered_ms, now.value)}
          {page.resolved_ms !== null && ` to ${clock(page.resolved_ms)}`}, {age(seconds)}
        </p>
      </header>
      <p class="lead">{page.summary}</p>
      <PageFacts page={page} />
      {page.has_runbook && <Inline name={page.alert} />}
    </article>
  );
}

function Inline({ name }: { name: string }) {
  const answer = useAnswer<Runbook>(`/api/runbooks/${encodeURIComponent(name)}`).value;
  return answer.is === "here" ? <RunbookText runbook={answer.value} /> : null;
}

function Unknown({ waiting, id }: { waiting: boolean; id: string }) {
  if (waiting) return <p class="waiting">Looking for page {id}.</p>;
  return (
    <section class="empty">
      <h1>This page is not here any more</h1>
      <p>
        Page <code>{id}</code> is not among the open and recent ones. The <a href="/logs?q=page">logs</a> keep every
        page that was sent.
      </p>
    </section>
  );
}

/** The link in a page that was sent: an opaque number that only a person who is logged in can turn into a call. */
export function Example({ id, number }: { id: string; number: string }) {
  const answer = useAnswer<{ call_id: string }>(`/api/pages/${encodeURIComponent(id)}/examples/${number}`).value;
  if (answer.is === "here") location.replace(`/calls/${encodeURIComponent(answer.value.call_id)}`);
  return (
    <Shell>
      {answer.is === "refused" ? (
        <section class="empty">
          <h1>No such example call</h1>
          <p>{answer.why}</p>
        </section>
      ) : (
        <p class="waiting">Looking for the call.</p>
      )}
    </Shell>
  );
}
