/** Runbooks: compiled into the binary, so that they are there when the network is not. */

import { useEffect } from "preact/hooks";

import { useAnswer } from "./api";
import { Shell } from "./shell";
import type { Runbook, RunbookTitle } from "./wire";

export function RunbookPage({ name }: { name: string }) {
  const answer = useAnswer<Runbook>(`/api/runbooks/${encodeURIComponent(name)}`).value;
  useEffect(() => {
    document.title = `${name} \u00b7 Belfry`;
  }, [name]);
  return (
    <Shell>
      {answer.is === "here" && <RunbookText runbook={answer.value} />}
      {answer.is === "waiting" && <p class="waiting">Opening the runbook.</p>}
      {answer.is === "refused" && (
        <section class="empty">
          <h1>There is no runbook named {name}</h1>
          <p>
            All of them are in the <a href="/runbooks">list</a>.
          </p>
        </section>
      )}
    </Shell>
  );
}

/** The server renders the Markdown and drops any HTML in it. */
export function RunbookText({ runbook }: { runbook: Runbook }) {
  return <article class="runbook" dangerouslySetInnerHTML={{ __html: runbook.html }} />;
}

export function RunbookList() {
  const answer = useAnswer<{ runbooks: RunbookTitle[] }>("/api/runbooks").value;
  useEffect(() => {
    document.title = "Runbooks \u00b7 Belfry";
  }, []);
  return (
    <Shell>
      <header class="title">
        <h1>Runbooks</h1>
      </header>
      {answer.is === "here" && (
        <ul class="runbook-list">
          {answer.value.runbooks.map(({ name, title }) => (
            <li key={name}>
              <a href={`/runbooks/${encodeURIComponent(name)}`}>{name}</a>
              <span>{title}</span>
            </li>
          ))}
        </ul>
      )}
      {answer.is === "here" && answer.value.runbooks.length === 0 && <p class="quiet">No runbook is built in.</p>}
      {answer.is === "refused" && <p class="refused">{answer.why}</p>}
    </Shell>
  );
}
