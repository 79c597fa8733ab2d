/** Asking the metrics: a query, its answer as a graph or a table, what was noticed and what it cost. All of it is in the
 * address, so that it can be sent to a colleague. */

import type { TargetedEvent } from "preact";
import { useEffect, useMemo, useState } from "preact/hooks";

import { useAnswer } from "../api";
import { param, setParam, Select } from "../filters";
import { count, span } from "../format";
import { here, redirect } from "../router";
import { Shell } from "../shell";
import { PromqlBox } from "./box";
import { Graph } from "./graph";
import { nameOf } from "./names";
import { local, RANGES, RANGE_USUAL, timesOf, type Times } from "./times";
import type { Enveloped, Explained, HistogramPoint, Plan, Result, Series } from "./wire";

/** Rows of the table; more want a narrower query. */
const ROWS_MAX = 200;
/** The page's server gives up a little later. */
const TIMEOUT_SECONDS = 25;

const EXAMPLES: [query: string, what: string][] = [
  ["sum by (region) (rate(core_call_attempts_total[5m]))", "calls a second by region"],
  ["histogram_quantile(0.95, sum by (le) (rate(core_post_dial_seconds_bucket[5m])))", "post-dial delay of nineteen in twenty"],
  ["max(pipeline_lag_entries) by (store)", "how far the stores are behind the log"],
];

export function Explore() {
  const [q, view, range] = [param("q"), param("view"), param("range") || RANGE_USUAL];
  const [from, to, step] = [param("from"), param("to"), param("step")];
  const [runs, setRuns] = useState(0);
  useEffect(() => {
    document.title = "Explore \u00b7 Belfry";
  }, []);
  const times = useMemo(() => timesOf(range, from, to, step, Date.now()), [range, from, to, step, q, runs]);
  const run = (text: string) => {
    if (text === q) setRuns(runs + 1);
    else setParam("q", text);
  };
  return (
    <Shell>
      <header class="title">
        <h1>Explore</h1>
        <div class="filters">
          <Select label="Time" name="range" options={[...RANGES.map(([value, title]): [string, string] => [value === RANGE_USUAL ? "" : value, title])]} />
          <Step text={step} />
          <Select label="As" name="view" options={[["", "graph"], ["table", "table"]]} />
          <Share times={times} />
        </div>
      </header>
      <Fixed times={times} isFixed={from !== "" || to !== ""} />
      {q === "" ? (
        <>
          <PromqlBox text="" why={null} onRun={run} />
          <Beginning />
        </>
      ) : (
        <Asked key={view} q={q} view={view} times={times} runs={runs} onRun={run} />
      )}
    </Shell>
  );
}

function Asked({ q, view, times, runs, onRun }: { q: string; view: string; times: Times; runs: number; onRun: (text: string) => void }) {
  const form = new URLSearchParams({ query: q, explain: "1", timeout: String(TIMEOUT_SECONDS) });
  const isTable = view === "table";
  if (isTable) form.set("time", String(times.to));
  else {
    form.set("start", String(times.from));
    form.set("end", String(times.to));
    form.set("step", String(times.step));
  }
  form.set("limit", String(ROWS_MAX));
  const path = `/api/explore/${isTable ? "query" : "query_range"}?${form}`;
  const answer = useAnswer<Enveloped<Result>>(`${path}&run=${runs}`).value;
  const isHere = answer.is === "here";
  return (
    <>
      <PromqlBox text={q} why={answer.is === "refused" ? answer.why : null} onRun={onRun} />
      {answer.is === "waiting" && <p class="waiting">Asking.</p>}
      {isHere && <Remarks {...answer.value} />}
      {isHere && <Shown result={answer.value.data} times={times} />}
      {isHere && answer.value.explain && <Cost explained={answer.value.explain} />}
    </>
  );
}

function Beginning() {
  return (
    <section class="empty">
      <p>Ask in PromQL. A few to begin with:</p>
      <ul class="examples">
        {EXAMPLES.map(([query, what]) => (
          <li key={query}>
            <a href={`/explore?q=${encodeURIComponent(query)}`}>
              <code>{query}</code>
            </a>{" "}
            {what}
          </li>
        ))}
      </ul>
      <p>
        How one call sounded is asked by its Call-ID, as <code>{'rtp_jitter_seconds{call_id="..."}'}</code>; each call's page leads here.
      </p>
    </section>
  );
}

/** The times that are fixed by the address, with a way back to the last hours. */
function Fixed({ times, isFixed }: { times: Times; isFixed: boolean }) {
  if (!isFixed) return null;
  const set = (name: string) => (event: TargetedEvent<HTMLInputElement>) => {
    const at = new Date(event.currentTarget.value).getTime() / 1000;
    if (Number.isFinite(at)) setParam(name, String(at));
  };
  const release = () => {
    const query = new URLSearchParams(here.value.query);
    query.delete("from");
    query.delete("to");
    redirect(`${here.value.path}?${query}`);
  };
  return (
    <p class="filters fixed">
      <label class="field">
        <span>From</span>
        <input type="datetime-local" step="1" value={local(times.from)} onChange={set("from")} />
      </label>
      <label class="field">
        <span>to</span>
        <input type="datetime-local" step="1" value={local(times.to)} onChange={set("to")} />
      </label>
      <button type="button" onClick={release}>
        Until now
      </button>
    </p>
  );
}

function Step({ text }: { text: string }) {
  const [value, setValue] = useState(text);
  useEffect(() => setValue(text), [text]);
  return (
    <label class="field">
      <span>Step</span>
      <input
        class="step"
        value={value}
        placeholder="fitting"
        onInput={(event) => setValue(event.currentTarget.value)}
        onChange={(event) => setParam("step", event.currentTarget.value.trim())}
      />
    </label>
  );
}

/** Copies the address with its times fixed, so that others see what we see. */
function Share({ times }: { times: Times }) {
  const [said, setSaid] = useState("");
  const share = async () => {
    const query = new URLSearchParams(here.value.query);
    query.set("from", String(times.from));
    query.set("to", String(times.to));
    redirect(`${here.value.path}?${query}`);
    try {
      await navigator.clipboard.writeText(location.href);
      setSaid("Link copied");
    } catch {
      // Without TLS browsers give no clipboard; the address is right all the same.
      setSaid("The link is in the address bar");
    }
  };
  return (
    <>
      <button type="button" onClick={() => void share()}>
        Link to share
      </button>
      <span role="status">{said}</span>
    </>
  );
}

function Remarks({ warnings = [], infos = [] }: { warnings?: string[]; infos?: string[] }) {
  if (warnings.length + infos.length === 0) return null;
  return (
    <ul class="remarks">
      {warnings.map((text) => (
        <li key={text}>
          <b>Warning</b> {text.replace(/^PromQL warning: /, "")}
        </li>
      ))}
      {infos.map((text) => (
        <li key={text}>
          <b>Note</b> {text.replace(/^PromQL info: /, "")}
        </li>
      ))}
    </ul>
  );
}

function Shown({ result, times }: { result: Result; times: Times }) {
  if (result.resultType === "scalar" || result.resultType === "string") {
    return <p class="lead single">{result.result[1]}</p>;
  }
  if (result.result.length === 0) {
    return <p class="quiet">Nothing was found at this time. A metric that is spelled right may have had no samples then.</p>;
  }
  if (result.resultType === "matrix" && result.result.some((one) => one.values?.length)) {
    return <Graph series={result.result} times={times} />;
  }
  return <Rows series={result.result} />;
}

function Rows({ series }: { series: Series[] }) {
  return (
    <table class="list series">
      <thead>
        <tr>
          <th scope="col">Series</th>
          <th scope="col" class="num">Value</th>
        </tr>
      </thead>
      <tbody>
        {series.slice(0, ROWS_MAX).map((one) => (
          <tr key={nameOf(one.metric)}>
            <td class="line">
              <code>{nameOf(one.metric)}</code>
            </td>
            <td class="num">{valueOf(one)}</td>
          </tr>
        ))}
      </tbody>
    </table>
  );
}

function valueOf(one: Series): string {
  const point = one.value ?? one.values?.at(-1);
  if (point) return point[1];
  const histogram = (one.histogram ?? one.histograms?.at(-1))?.[1];
  return histogram ? histogramText(histogram) : "\u2013";
}

function histogramText({ count: events, sum }: HistogramPoint): string {
  return `${events} events, sum ${sum}`;
}

/** The plan of the query: what each part read, computed and took. */
function Cost({ explained }: { explained: Explained }) {
  const rows = flat(explained.plan, 0);
  return (
    <details class="cost">
      <summary>
        What it cost: {span(explained.plan.seconds * 1000)}, {count(explained.samples)} samples
      </summary>
      <table class="list">
        <thead>
          <tr>
            <th scope="col">Part</th>
            <th scope="col" class="num">Time, all below included</th>
            <th scope="col" class="num">Series</th>
            <th scope="col" class="num">Samples read</th>
            <th scope="col" class="num">Values</th>
          </tr>
        </thead>
        <tbody>
          {rows.map(([depth, plan], index) => (
            <tr key={index}>
              <td class="line" style={{ paddingLeft: `${depth * 1.4}rem` }}>
                {plan.kind} <code>{plan.text}</code>
              </td>
              <td class="num">{span(plan.seconds * 1000)}</td>
              <td class="num">{count(plan.series)}</td>
              <td class="num">{count(plan.samplesRead)}</td>
              <td class="num">{count(plan.values)}</td>
            </tr>
          ))}
        </tbody>
      </table>
    </details>
  );
}

function flat(plan: Plan, depth: number): [depth: number, plan: Plan][] {
  return [[depth, plan], ...plan.below.flatMap((below) => flat(below, depth + 1))];
}
