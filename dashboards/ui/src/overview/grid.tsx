/** Region by journey: a real table, one look. */

import { age, ratio, rate, when, words } from "../format";
import { cellKey, now, trendLength, trends } from "../live/live";
import { StateMark } from "../state";
import type { Cell } from "../wire";
import { Spark } from "./spark";

const JOURNEYS = ["register", "call_setup", "media_quality", "edge_http", "messaging"];

export function Grid({ cells }: { cells: Cell[] }) {
  const regions = [...new Set(cells.map((cell) => cell.region))].sort(byName);
  const named = new Set(cells.filter((cell) => cell.state !== "not_deployed").map((cell) => cell.journey));
  const journeys = [...JOURNEYS.filter((journey) => named.has(journey)), ...[...named].filter((j) => !JOURNEYS.includes(j))];
  const byKey = new Map(cells.map((cell) => [cellKey(cell.region, cell.journey), cell]));
  return (
    <section class={`grid ${density(regions.length)}`} aria-labelledby="grid-title">
      <h2 id="grid-title" class="sr">
        Regions and journeys
      </h2>
      <table>
        <thead>
          <tr>
            <th scope="col">Region</th>
            {journeys.map((journey) => (
              <th scope="col" key={journey}>
                {words(journey)}
              </th>
            ))}
          </tr>
        </thead>
        <tbody>
          {regions.map((region) => (
            <tr key={region}>
              <th scope="row">{region}</th>
              {journeys.map((journey) => (
                <GridCell key={journey} cell={byKey.get(cellKey(region, journey))} />
              ))}
            </tr>
          ))}
        </tbody>
      </table>
      {regions.length === 0 && <p class="waiting">No journey has had an event yet.</p>}
    </section>
  );
}

/** `site-2` before `site-10`. */
function byName(a: string, b: string): number {
  return a.localeCompare(b, "en", { numeric: true });
}

/** A wall does not scroll: many regions get lower rows. */
function density(regions: number): string {
  if (regions <= 5) return "";
  return regions <= 10 ? "is-dense" : "is-tight";
}

function GridCell({ cell }: { cell: Cell | undefined }) {
  if (!cell || cell.state === "not_deployed") return <td class="cell is-not_deployed"><span class="sr">Not deployed</span></td>;
  const points = trends.value.get(cellKey(cell.region, cell.journey)) ?? [];
  return (
    <td class={`cell is-${cell.state}`} data-cell={cellKey(cell.region, cell.journey)} data-state={cell.state}>
      <div class="cell-body">
        <div class="cell-state">
          <StateMark state={cell.state} silent />
        </div>
        <p class="cell-ratio">
          <strong class="number">{ratio(cell.good_ratio_5m)}</strong>
          <span class="sr"> good in the last five minutes</span>
        </p>
        <p class="cell-word">
          <span class={cell.state === "ok" ? "sr" : ""}>{words(cell.state)}</span> <span class="since">{since(cell)}</span>
        </p>
        <p class="cell-rate">
          <span class="number">{rate(cell.events_per_second)}</span>
          <small>/s</small>
        </p>
      </div>
      <Spark points={points} length={trendLength.value} />
    </td>
  );
}

/** How long for the abnormal, from when for the normal. */
function since(cell: Cell): string {
  if (cell.state !== "ok") return `for ${age((now.value - cell.since_ms) / 1000)}`;
  return `since ${when(cell.since_ms, now.value)}`;
}
