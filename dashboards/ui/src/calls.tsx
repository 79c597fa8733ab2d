/** Calls that ended, newest first. */

import { useEffect } from "preact/hooks";

import { useAnswer } from "./api";
import { Count, param, QueryBox, Select } from "./filters";
import { age, party, span, when, words } from "./format";
import { now, snapshot } from "./live/live";
import { Shell } from "./shell";
import { StateMark } from "./state";
import type { CallList, CallRow } from "./wire";

const OUTCOMES = ["answered", "busy", "no_answer", "cancelled", "rejected", "failed"];
const REFRESH_MS = 5000;
/** Below this score most people complain (G.107: R 70). */
export const MOS_GOOD = 3.6;

export function Calls() {
  const query = new URLSearchParams();
  for (const name of ["q", "outcome", "region"]) if (param(name)) query.set(name, param(name));
  const answer = useAnswer<CallList>(`/api/calls?${query}`, REFRESH_MS).value;
  const regions = [...new Set(snapshot.value?.cells.map((cell) => cell.region))].sort();
  useEffect(() => {
    document.title = "Calls \u00b7 Belfry";
  }, []);
  return (
    <Shell>
      <header class="title">
        <h1>Calls</h1>
        <QueryBox key={param("q")} label="Search the calls" hint="words, or attributes as call.outcome:failed" />
        <div class="filters">
          <Select label="Outcome" name="outcome" options={[["", "all"], ...OUTCOMES.map(option)]} />
          <Select label="Region" name="region" options={[["", "all"], ...regions.map(option)]} />
        </div>
        {answer.is === "here" && <Count rows={answer.value.calls.length} {...answer.value} />}
      </header>
      {answer.is === "refused" && <p class="refused">{answer.why}</p>}
      {answer.is === "waiting" && <p class="waiting">Asking for calls.</p>}
      {answer.is === "here" && <CallTable calls={answer.value.calls} />}
    </Shell>
  );
}

function option(value: string): [string, string] {
  return [value, words(value)];
}

function CallTable({ calls }: { calls: CallRow[] }) {
  if (calls.length === 0) return <p class="quiet">No call fits. Ended calls appear here within a second.</p>;
  return (
    <table class="list calls">
      <thead>
        <tr>
          <th scope="col">Started</th>
          <th scope="col">Caller</th>
          <th scope="col">Callee</th>
          <th scope="col">Region</th>
          <th scope="col">Over</th>
          <th scope="col">Outcome</th>
          <th scope="col" class="num">Rang after</th>
          <th scope="col" class="num">Talked</th>
          <th scope="col" class="num">Worst MOS</th>
        </tr>
      </thead>
      <tbody>
        {calls.map((call) => (
          <tr key={call.call_id}>
            <td class="num">
              <a href={`/calls/${encodeURIComponent(call.call_id)}`}>{when(call.start_ms, now.value)}</a>
            </td>
            <td>{party(call.caller)}</td>
            <td>{party(call.callee)}</td>
            <td>
              {call.region}
              {call.country && <small> {call.country}</small>}
            </td>
            <td>
              {call.transport.toUpperCase()}
              {(call.called_trunk ?? call.calling_trunk) && <small> {call.called_trunk ?? call.calling_trunk}</small>}
            </td>
            <td>
              <Outcome call={call} />
            </td>
            <td class="num">{call.post_dial_seconds === null ? "\u2013" : span(call.post_dial_seconds * 1000)}</td>
            <td class="num">{talked(call)}</td>
            <td class="num">
              <Mos value={call.mos_min} />
            </td>
          </tr>
        ))}
      </tbody>
    </table>
  );
}

export function Outcome({ call }: { call: CallRow }) {
  const failed = call.outcome === "failed";
  const silent = call.silent_legs.length > 0;
  return (
    <span class="outcome">
      {(failed || silent) && <StateMark state={failed ? "critical" : "warning"} silent />}
      {words(call.outcome)} <small>{call.status_code}</small>
      {silent && <small> {call.silent_legs.join(" and ")} not heard</small>}
    </span>
  );
}

export function Mos({ value }: { value: number | null }) {
  if (value === null) return <>{"\u2013"}</>;
  return (
    <>
      {value < MOS_GOOD && <StateMark state="warning" />} {value.toFixed(2)}
    </>
  );
}

export function talked(call: CallRow): string {
  if (call.answer_ms === null || call.end_ms === null) return "\u2013";
  return age((call.end_ms - call.answer_ms) / 1000);
}
