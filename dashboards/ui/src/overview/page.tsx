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
  const live = view?.pages.find((page) => page.id === id);
  return (
    <Shell>
      {live ? <Known page={live} /> : view === null ? <p class="waiting">Looking for page {id}.</p> : <Past id={id} />}
    </Shell>
  );
}

/** The live stream carries the newest pages only; the server remembers more. */
function Past({ id }: { id: string }) {
  const answer = useAnswer<Page>(`/api/pages/${encodeURIComponent(id)}`).value;
  if (answer.is === "here") return <Known page={answer.value} />;
  return answer.is === "waiting" ? <p class="waiting">Looking for page {id}.</p> : <Unknown id={id} />;
}

function Known({ page }: { page: Page }) {
  const seconds = ((page.resolved_ms ?? now.value) - page.triggered_ms) / 1000;
  return (
    <article class={`page-view ${page.state === "triggered" ? "is-critical" : "is-ok"}`}>
      <header class="title">
        <h1>
          {words(page.journey)} in {where(page)}
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

function Unknown({ id }: { id: string }) {
  return (
    <section class="empty">
      <h1>This page is not here any more</h1>
      <p>
        Page <code>{id}</code> is no longer remembered. The <a href="/logs?q=page&since=90d">logs</a> keep every page
        that was sent.
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
