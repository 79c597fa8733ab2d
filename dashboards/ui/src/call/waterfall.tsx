/** Spans as bars on one time axis, children under their parents. */

import { span as duration } from "../format";
import { StateMark } from "../state";
import type { Span } from "../wire";

interface Line {
  span: Span;
  depth: number;
}

const DEPTH_MAX = 8;

export function Waterfall({ spans }: { spans: Span[] }) {
  if (spans.length === 0) return <p class="quiet">No span of this call is kept.</p>;
  const start = Math.min(...spans.map((span) => span.start_ms));
  const whole = Math.max(1, Math.max(...spans.map((span) => span.end_ms)) - start);
  return (
    <table class="list waterfall">
      <thead>
        <tr>
          <th scope="col">Span</th>
          <th scope="col">Component</th>
          <th scope="col" class="num">Began</th>
          <th scope="col" class="num">Took</th>
          <th scope="col">
            <span class="sr">Bar</span>
            <span class="scale" aria-hidden="true">
              <span>0</span>
              <span>{duration(whole / 2)}</span>
              <span>{duration(whole)}</span>
            </span>
          </th>
        </tr>
      </thead>
      <tbody>
        {tree(spans).map(({ span, depth }) => {
          const left = ((span.start_ms - start) / whole) * 100;
          const width = Math.max(0.3, ((span.end_ms - span.start_ms) / whole) * 100);
          return (
            <tr key={span.span_id} title={span.attributes.map(([name, value]) => `${name}=${value}`).join("\n")}>
              <th scope="row" style={{ paddingLeft: `${0.5 + depth * 1.1}rem` }}>
                {!span.ok && <StateMark state="critical" />} {span.name}
              </th>
              <td>{span.component}</td>
              <td class="num">{duration(span.start_ms - start)}</td>
              <td class="num">{duration(span.end_ms - span.start_ms)}</td>
              <td class="bar-lane">
                <svg viewBox="0 0 100 10" preserveAspectRatio="none" aria-hidden="true">
                  <rect class={span.ok ? "is-ok" : "is-critical"} x={Math.min(left, 99.7)} width={width} height="10" />
                </svg>
              </td>
            </tr>
          );
        })}
      </tbody>
    </table>
  );
}

/** Depth first, by start time; a span whose parent is not here stands at the top. */
function tree(spans: Span[]): Line[] {
  const known = new Set(spans.map((span) => span.span_id));
  const below = new Map<string, Span[]>();
  for (const span of spans.toSorted((a, b) => a.start_ms - b.start_ms)) {
    const parent = span.parent_id !== null && known.has(span.parent_id) ? span.parent_id : "";
    below.set(parent, [...(below.get(parent) ?? []), span]);
  }
  const lines: Line[] = [];
  const visit = (parent: string, depth: number) => {
    const children = below.get(parent) ?? [];
    // Taken out before the descent, so that a circle among parents ends.
    below.delete(parent);
    for (const span of children) {
      lines.push({ span, depth: Math.min(depth, DEPTH_MAX) });
      visit(span.span_id, depth + 1);
    }
  };
  visit("", 0);
  return lines;
}
