/**
 * A quarter of an hour of one cell: height is traffic, colour is the state at that time.
 * After a start it begins with a third of that width, so that the first minutes can be seen.
 */

import type { State, TrendPoint } from "../wire";

const HEIGHT = 100;
const YOUNG = 1 / 3;

export function Spark({ points, length: longest }: { points: TrendPoint[]; length: number }) {
  const length = Math.max(points.length, Math.ceil(longest * YOUNG));
  const highest = Math.max(0.1, ...points.map(([rate]) => rate));
  const paths = new Map<State, string>();
  const offset = length - points.length;
  points.forEach(([rate, state], index) => {
    // A silent step keeps a hairline, so that "no traffic" differs from "not there yet".
    const height = Math.max(2, (rate / highest) * HEIGHT);
    const bar = `M${offset + index} ${HEIGHT}v${-height.toFixed(1)}h1V${HEIGHT}z`;
    paths.set(state, (paths.get(state) ?? "") + bar);
  });
  return (
    <svg class="spark" viewBox={`0 0 ${length} ${HEIGHT}`} preserveAspectRatio="none" aria-hidden="true">
      {[...paths].map(([state, path]) => (
        <path key={state} class={`is-${state}`} d={path} />
      ))}
    </svg>
  );
}
