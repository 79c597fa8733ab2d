/** Objectives, the one that runs out first on top. */

import { age, burn, count, objective, share, words } from "../format";
import { StateMark } from "../state";
import type { BurnWindow, Slo } from "../wire";

/** Below this share of the window the figures are not to be trusted alone. */
const COVERAGE_GOOD = 0.9;

export function Slos({ slos }: { slos: Slo[] }) {
  const sorted = slos.toSorted(byExhaustion);
  return (
    <section class="panel slos" aria-labelledby="slos-title">
      <header>
        <h2 id="slos-title">Objectives, first to run out on top</h2>
        <p>{tally(slos)}</p>
      </header>
      <div class="scroll" tabIndex={0} role="group" aria-labelledby="slos-title">
        <table>
          <thead>
            <tr>
              <th scope="col">Journey</th>
              <th scope="col">Region</th>
              <th scope="col" class="num">Objective</th>
              <th scope="col">Budget left</th>
              <th scope="col" class="num">Burn {windowName(slos, 0, "1 h")}</th>
              <th scope="col" class="num">Burn {windowName(slos, 1, "6 h")}</th>
              <th scope="col" class="num">Runs out in</th>
              <th scope="col" class="num">Coverage</th>
            </tr>
          </thead>
          <tbody>
            {sorted.map((slo) => (
              <Row key={slo.name + slo.region} slo={slo} />
            ))}
          </tbody>
        </table>
        {slos.length === 0 && <p class="waiting">No objective has figures yet.</p>}
      </div>
    </section>
  );
}

function Row({ slo }: { slo: Slo }) {
  return (
    <tr title={`${slo.name}: ${count(slo.good)} good, ${count(slo.bad)} bad`}>
      <th scope="row">{words(slo.journey)}</th>
      <td>{slo.region}</td>
      <td class="num">{objective(slo.objective_ratio)}</td>
      <td>
        <Budget left={slo.budget_remaining_ratio} />
      </td>
      <Burn value={slo.burn_1h} window={slo.windows[0]} />
      <Burn value={slo.burn_6h} window={slo.windows[1]} />
      <td class="num">{runsOut(slo)}</td>
      <td class={slo.coverage_ratio < COVERAGE_GOOD ? "num is-thin" : "num"}>{share(slo.coverage_ratio)}</td>
    </tr>
  );
}

/** A bar with its number: full is good, empty is spent, overspent is marked. */
function Budget({ left }: { left: number }) {
  const width = Math.min(1, Math.max(0, left));
  const state = left <= 0 ? "critical" : left < 0.25 ? "warning" : "ok";
  return (
    <span class={`budget is-${state}`}>
      <svg viewBox="0 0 100 10" preserveAspectRatio="none" aria-hidden="true">
        <rect class="budget-all" width="100" height="10" />
        <rect class="budget-left" width={width * 100} height="10" />
      </svg>
      <span class="num">{share(left)}</span>
    </span>
  );
}

/** Marked while both windows of the pair burn: a rate that is high but already over alerts nobody. */
function Burn({ value, window }: { value: number; window: BurnWindow | undefined }) {
  const state = window?.severity === "page" ? "critical" : "warning";
  return (
    <td class="num">
      {window?.is_burning && <StateMark state={state} />} {burn(value)}
    </td>
  );
}

/** `1 h` for a month; what it is scaled to when the objectives share another period, as in the demo. */
function windowName(slos: Slo[], index: number, usual: string): string {
  const lengths = new Set(slos.map((slo) => slo.windows[index]?.seconds));
  const [seconds] = lengths;
  if (lengths.size !== 1 || seconds === undefined) return usual;
  return age(seconds).replace(/ 00 [sm]$/, "");
}

function runsOut(slo: Slo): string {
  if (slo.budget_remaining_ratio <= 0) return "spent";
  return slo.exhaustion_seconds === null ? "\u2013" : age(slo.exhaustion_seconds);
}

function byExhaustion(a: Slo, b: Slo): number {
  return (
    urgency(a) - urgency(b) ||
    a.budget_remaining_ratio - b.budget_remaining_ratio ||
    a.journey.localeCompare(b.journey) ||
    a.region.localeCompare(b.region)
  );
}

/** What a wall cannot scroll to is at least counted. */
function tally(slos: Slo[]): string {
  const spent = slos.filter((slo) => slo.budget_remaining_ratio <= 0).length;
  const running = slos.filter((slo) => slo.budget_remaining_ratio > 0 && slo.exhaustion_seconds !== null).length;
  return `${slos.length} in all, ${spent} spent, ${running} running out`;
}

function urgency(slo: Slo): number {
  if (slo.budget_remaining_ratio <= 0) return -1;
  return slo.exhaustion_seconds ?? Infinity;
}
