/** One call, all of it: what became of it, every message, how it sounded, where the time went, what was said. */

import { useEffect } from "preact/hooks";

import { useAnswer } from "../api";
import { Mos, Outcome, talked } from "../calls";
import { clock, party, span, words } from "../format";
import { LogTable } from "../logs";
import { Shell } from "../shell";
import type { CallDetail, CallRow } from "../wire";
import { Ladder } from "./ladder";
import { QualityCurves } from "./quality";
import { Waterfall } from "./waterfall";

export function Call({ id }: { id: string }) {
  const answer = useAnswer<CallDetail>(`/api/calls/${encodeURIComponent(id)}`).value;
  useEffect(() => {
    document.title = "Call \u00b7 Belfry";
  }, []);
  return (
    <Shell>
      {answer.is === "waiting" && <p class="waiting">Looking for the call.</p>}
      {answer.is === "refused" && (
        <section class="empty">
          <h1>{answer.status === 404 ? "This call is not known here" : "The call cannot be shown"}</h1>
          <p>
            {answer.why}. Calls that ended are in the <a href="/calls">list</a>.
          </p>
        </section>
      )}
      {answer.is === "here" && <Detail call={answer.value} />}
    </Shell>
  );
}

function Detail({ call }: { call: CallDetail }) {
  // The call begins with its first message; the record begins with the INVITE that was let in.
  const start = call.messages[0]?.at_ms ?? call.summary?.start_ms ?? 0;
  return (
    <article class="call">
      <header class="title">
        <h1>
          {call.summary ? (
            <>
              {party(call.summary.caller)} <span class="to">to</span> {party(call.summary.callee)}
            </>
          ) : (
            "Call in progress"
          )}
        </h1>
        <p class="call-id">
          <code>{call.call_id}</code>
        </p>
      </header>
      {call.summary && <Summary call={call.summary} />}
      <nav class="in-page" aria-label="Parts of the call">
        <a href="#ladder">Messages ({call.messages.length})</a>
        <a href="#quality">Quality</a>
        <a href="#spans">Time ({call.spans.length})</a>
        <a href="#lines">Logs ({call.logs.length})</a>
      </nav>
      <section id="ladder" aria-labelledby="ladder-title">
        <h2 id="ladder-title">Messages</h2>
        <Ladder messages={call.messages} summary={call.summary} start={start} />
      </section>
      <section id="quality" aria-labelledby="quality-title">
        <h2 id="quality-title">Quality</h2>
        <QualityCurves windows={call.quality} />
        <InExplore call={call} />
      </section>
      <section id="spans" aria-labelledby="spans-title">
        <h2 id="spans-title">Where the time went</h2>
        <Waterfall spans={call.spans} />
      </section>
      <section id="lines" aria-labelledby="lines-title">
        <h2 id="lines-title">Logs</h2>
        <LogTable lines={call.logs} within />
      </section>
    </article>
  );
}

/** The same curves as series of PromQL, from a little before the call to a little after it. */
const CURVES: [metric: string, title: string][] = [
  ["rtp_jitter_seconds", "jitter"],
  ["rtp_loss_ratio", "loss"],
  ["rtp_mos", "MOS"],
  ["rtp_round_trip_seconds", "round trip"],
];
const MARGIN_SECONDS = 15;

function InExplore({ call }: { call: CallDetail }) {
  const ends = call.quality.map((window) => window.at_ms / 1000);
  if (ends.length === 0) return null;
  const longest = Math.max(...call.quality.map((window) => window.window_seconds));
  const step = Math.max(1, Math.min(5, Math.floor(longest)));
  const link = (metric: string) => {
    const query = new URLSearchParams({
      q: `${metric}{call_id=${JSON.stringify(call.call_id)}}`,
      from: String(Math.floor(Math.min(...ends) - longest - MARGIN_SECONDS)),
      to: String(Math.ceil(Math.max(...ends) + MARGIN_SECONDS)),
      step: `${step}s`,
    });
    return `/explore?${query}`;
  };
  return (
    <p class="in-explore">
      Open in Explore:{" "}
      {CURVES.map(([metric, title]) => (
        <a key={metric} href={link(metric)}>
          {title}
        </a>
      ))}
    </p>
  );
}

function Summary({ call }: { call: CallRow }) {
  return (
    <dl class="facts">
      <div>
        <dt>Outcome</dt>
        <dd>
          <Outcome call={call} />
        </dd>
      </div>
      <div>
        <dt>Cause</dt>
        <dd>{words(call.cause)}</dd>
      </div>
      <div>
        <dt>Started</dt>
        <dd class="num">{clock(call.start_ms, true)}</dd>
      </div>
      <div>
        <dt>Rang after</dt>
        <dd class="num">{call.post_dial_seconds === null ? "\u2013" : span(call.post_dial_seconds * 1000)}</dd>
      </div>
      <div>
        <dt>Talked</dt>
        <dd class="num">{talked(call)}</dd>
      </div>
      <div>
        <dt>Worst MOS</dt>
        <dd class="num">
          <Mos value={call.mos_min} />
        </dd>
      </div>
      <div>
        <dt>Mean MOS</dt>
        <dd class="num">
          <Mos value={call.mos_mean} />
        </dd>
      </div>
      <div>
        <dt>From</dt>
        <dd>
          {call.region}
          {call.country && `, ${call.country}`}, {call.transport.toUpperCase()}
        </dd>
      </div>
    </dl>
  );
}
