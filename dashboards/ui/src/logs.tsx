/** Searching what was said. Results newest first; the query is in the address. */

import { useEffect } from "preact/hooks";

import { useAnswer } from "./api";
import { Count, param, QueryBox, Select } from "./filters";
import { when } from "./format";
import { now } from "./live/live";
import { Shell } from "./shell";
import { StateMark } from "./state";
import type { LogLine, LogList } from "./wire";

const REFRESH_MS = 5000;
const SEVERITIES: [value: string, title: string][] = [
  ["debug", "all"],
  ["info", "info and above"],
  ["warn", "warn and above"],
  ["error", "error"],
];

export function Logs() {
  const query = new URLSearchParams();
  for (const name of ["q", "severity", "since"]) if (param(name)) query.set(name, param(name));
  // Who just looks wants to see what matters; who searches wants to find.
  const usual = param("q") ? "debug" : "info";
  if (!param("severity")) query.set("severity", usual);
  const answer = useAnswer<LogList>(`/api/logs?${query}`, REFRESH_MS).value;
  useEffect(() => {
    document.title = "Logs \u00b7 Belfry";
  }, []);
  return (
    <Shell>
      <header class="title">
        <h1>Logs</h1>
        <QueryBox key={param("q")} label="Search the logs" hint='words, "phrases", component:edge_gateway, a Call-ID' />
        <div class="filters">
          <Select
            label="Severity"
            name="severity"
            options={SEVERITIES.map(([value, title]) => [value === usual ? "" : value, title])}
          />
          <Select
            label="Time"
            name="since"
            options={[["", "last hour"], ["15m", "last 15 m"], ["24h", "last 24 h"], ["90d", "all kept"]]}
          />
        </div>
        {answer.is === "here" && <Count rows={answer.value.lines.length} {...answer.value} />}
      </header>
      {answer.is === "refused" && <p class="refused" role="alert">{answer.why}</p>}
      {answer.is === "waiting" && <p class="waiting">Searching.</p>}
      {answer.is === "here" && <LogTable lines={answer.value.lines} />}
    </Shell>
  );
}

export function LogTable({ lines, within = false }: { lines: LogLine[]; within?: boolean }) {
  if (lines.length === 0) {
    return <p class="quiet">{within ? "Nothing was logged about this call." : "No line fits."}</p>;
  }
  return (
    <table class="list logs">
      <thead>
        <tr>
          <th scope="col">Time</th>
          <th scope="col">Severity</th>
          <th scope="col">Component</th>
          <th scope="col">Line</th>
        </tr>
      </thead>
      <tbody>
        {lines.map((line, index) => (
          <tr key={`${line.at_ms}/${index}`} class={`severity-${line.severity.toLowerCase()}`}>
            <td class="num">{time(line.at_ms, now.value)}</td>
            <td>
              <Severity line={line} />
            </td>
            <td>{line.component}</td>
            <td class="line">
              <span>{line.message}</span>
              {line.attributes.map(([name, value]) => (
                <span class="attribute" key={name}>
                  {name}=<b>{value}</b>
                </span>
              ))}
              {line.call_id && !within && (
                <a href={`/calls/${encodeURIComponent(line.call_id)}`}>call {line.call_id}</a>
              )}
            </td>
          </tr>
        ))}
      </tbody>
    </table>
  );
}

function Severity({ line }: { line: LogLine }) {
  const state = line.severity === "ERROR" ? "critical" : line.severity === "WARN" ? "warning" : null;
  return (
    <>
      {state && <StateMark state={state} silent />} {line.severity.toLowerCase()}
    </>
  );
}

function time(at_ms: number, now_ms: number): string {
  const milliseconds = String(Math.floor(at_ms) % 1000).padStart(3, "0");
  return `${when(at_ms, now_ms)}.${milliseconds}`;
}
