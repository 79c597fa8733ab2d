/** The top strip: worst state, open pages, how old the data is. */

import { age, plural, words } from "../format";
import { now, snapshotAge } from "../live/live";
import { StateMark, worst } from "../state";
import type { Cell, Page, Snapshot } from "../wire";

export function Strip({ view }: { view: Snapshot }) {
  return (
    <section class="strip" aria-label="Summary">
      <Worst cells={view.cells} />
      <OpenPages pages={view.pages} />
      <Data cells={view.cells} />
    </section>
  );
}

function Worst({ cells }: { cells: Cell[] }) {
  const now_worst = worst(cells);
  const abnormal = cells.filter((cell) => cell.state === "critical" || cell.state === "warning" || cell.state === "stale");
  const deployed = cells.filter((cell) => cell.state !== "not_deployed");
  return (
    <div class={`worst is-${now_worst.state}`} data-worst={now_worst.state}>
      <StateMark state={now_worst.state} silent />
      <div>
        <strong>{abnormal.length === 0 ? "All normal" : words(now_worst.state)}</strong>
        <span>
          {abnormal.length === 0
            ? `${plural(deployed.length, "journey")} watched`
            : where(now_worst.cells) + others(abnormal.length - now_worst.cells.length)}
        </span>
      </div>
    </div>
  );
}

/** More than these would not be read from 4 m. */
const JOURNEYS_NAMED_MAX = 2;
const REGIONS_NAMED_MAX = 4;

function where(cells: Cell[]): string {
  const [first] = cells;
  if (!first) return "";
  if (cells.length === 1) return `${words(first.journey)} in ${first.region}`;
  const [journeys, regions] = [new Set(cells.map((cell) => words(cell.journey))), new Set(cells.map((cell) => cell.region))];
  if (journeys.size > JOURNEYS_NAMED_MAX || regions.size > REGIONS_NAMED_MAX) return `${cells.length} fields of the grid`;
  return `${[...journeys].join(" and ")} in ${[...regions].join(", ")}`;
}

function others(number: number): string {
  return number > 0 ? ` + ${plural(number, "other")}` : "";
}

function OpenPages({ pages }: { pages: Page[] }) {
  const open = pages.filter((page) => page.state === "triggered");
  const oldest = Math.min(...open.map((page) => page.triggered_ms));
  return (
    <dl class={open.length > 0 ? "fact is-raised" : "fact"} data-open-pages={open.length}>
      <dt>Open pages</dt>
      <dd>
        <strong>{open.length}</strong>
        <span>{open.length > 0 ? `oldest ${age((now.value - oldest) / 1000)}` : "nobody is paged"}</span>
      </dd>
    </dl>
  );
}

/** Below this age data counts as of now: the engine samples each second. */
const FRESH_SECONDS = 2;

function Data({ cells }: { cells: Cell[] }) {
  const known = cells.filter((cell) => cell.last_event_ms !== null && cell.state !== "not_deployed");
  const byTime = known.toSorted((a, b) => (b.last_event_ms ?? 0) - (a.last_event_ms ?? 0));
  const [freshest] = byTime;
  const stalest = byTime.at(-1);
  return (
    <>
      <dl class="fact">
        <dt>Freshest data</dt>
        <dd>
          <strong>{freshest ? sinceLast(freshest) : "none"}</strong>
          <span>{freshest ? name(freshest) : "no event yet"}</span>
        </dd>
      </dl>
      <dl class={stalest?.state === "stale" ? "fact is-stale" : "fact"}>
        <dt>Stalest data</dt>
        <dd>
          <strong>{stalest ? sinceLast(stalest) : "none"}</strong>
          <span>{stalest ? name(stalest) : "no event yet"}</span>
        </dd>
      </dl>
      <dl class="fact">
        <dt>Figures made</dt>
        <dd>
          <strong>{seconds(snapshotAge.value ?? 0)}</strong>
          <span>by the alert engine</span>
        </dd>
      </dl>
    </>
  );
}

function sinceLast(cell: Cell): string {
  return seconds((now.value - (cell.last_event_ms ?? 0)) / 1000);
}

function seconds(value: number): string {
  return value < FRESH_SECONDS ? "now" : `${age(value)} ago`;
}

function name(cell: Cell): string {
  return `${words(cell.journey)}, ${cell.region}`;
}
