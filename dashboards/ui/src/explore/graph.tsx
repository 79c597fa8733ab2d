/** Series over time. They differ by dash and by weight, not by colour, and by their names in the list below. */

import { useEffect, useRef, useState } from "preact/hooks";
import uPlot from "uplot";

import { count, when } from "../format";
import { now } from "../live/live";
import { nameOf, short } from "./names";
import type { Times } from "./times";
import type { Series } from "./wire";

/** Series that are drawn; more make a picture that nobody can read. */
export const DRAWN_MAX = 24;
const HEIGHT_PX = 340;
const DASHES = [[], [9, 4], [2, 3], [12, 4, 2, 4], [5, 2], [1, 5]];
const INKS = ["--ink", "--normal", "--rule-strong"];

export function Graph({ series, times }: { series: Series[]; times: Times }) {
  const drawn = series.slice(0, DRAWN_MAX).filter((one) => (one.values?.length ?? 0) > 0);
  const [focus, setFocus] = useState<number | null>(null);
  const [at, setAt] = useState<number | null>(null);
  const place = useRef<HTMLDivElement>(null);
  const plot = useRef<uPlot | null>(null);
  const table = aligned(drawn, times);
  const key = JSON.stringify([times, drawn.map((one) => [one.metric, one.values?.at(-1), one.values?.length])]);
  useEffect(() => {
    const element = place.current;
    if (!element) return;
    const redraw = () => {
      plot.current?.destroy();
      plot.current = draw(element, drawn, table, setAt);
    };
    redraw();
    const night = matchMedia("(prefers-color-scheme: dark)");
    const resize = new ResizeObserver(() => plot.current?.setSize({ width: element.clientWidth, height: HEIGHT_PX }));
    resize.observe(element);
    night.addEventListener("change", redraw);
    return () => {
      night.removeEventListener("change", redraw);
      resize.disconnect();
      plot.current?.destroy();
      plot.current = null;
    };
  }, [key]);
  useEffect(() => {
    drawn.forEach((_, index) => plot.current?.setSeries(index + 1, { show: focus === null || focus === index }));
  }, [focus, key]);
  return (
    <>
      <figure class="explore-graph">
        <figcaption class="sr">{count(drawn.length)} series over time; the same as a table is in the other view</figcaption>
        <div ref={place} />
      </figure>
      {series.length > DRAWN_MAX && (
        <p class="quiet">
          {count(DRAWN_MAX)} of {count(series.length)} series are drawn: aggregate, or ask for topk({DRAWN_MAX}, ...).
        </p>
      )}
      <table class="list series">
        <thead>
          <tr>
            <th scope="col">
              <span class="sr">Line</span>
            </th>
            <th scope="col">Series</th>
            <th scope="col" class="num">
              {at === null ? "Last" : when((table[0][at] ?? 0) * 1000, now.value)}
            </th>
            <th scope="col" class="num">Least</th>
            <th scope="col" class="num">Most</th>
          </tr>
        </thead>
        <tbody>
          {drawn.map((one, index) => {
            const column = (table[index + 1] ?? []) as (number | null | undefined)[];
            const numbers = column.filter((value): value is number => value != null);
            const value = at === null ? numbers.at(-1) : column[at];
            return (
              <tr key={nameOf(one.metric)}>
                <td>
                  <svg class="line-sample" viewBox="0 0 40 10" aria-hidden="true" style={{ color: `var(${ink(index)})` }}>
                    <line x1="0" y1="5" x2="40" y2="5" stroke="currentColor" stroke-width="2.5" stroke-dasharray={dash(index).join(" ")} />
                  </svg>
                </td>
                <td class="line">
                  <button
                    type="button"
                    class="plain"
                    aria-pressed={focus === index}
                    title="Show this one alone"
                    onClick={() => setFocus(focus === index ? null : index)}
                  >
                    <code>{nameOf(one.metric)}</code>
                  </button>
                </td>
                <td class="num">{value == null ? "\u2013" : short(value)}</td>
                <td class="num">{numbers.length ? short(Math.min(...numbers)) : "\u2013"}</td>
                <td class="num">{numbers.length ? short(Math.max(...numbers)) : "\u2013"}</td>
              </tr>
            );
          })}
        </tbody>
      </table>
    </>
  );
}

function dash(index: number): number[] {
  return DASHES[index % DASHES.length] ?? [];
}

function ink(index: number): string {
  return INKS[Math.floor(index / DASHES.length) % INKS.length] ?? "--ink";
}

/** All series on the times that were asked for; a time without a value is a gap. */
function aligned(series: Series[], { from, to, step }: Times): uPlot.AlignedData {
  const length = Math.floor((to - from) / step + 1e-9) + 1;
  const times = Array.from({ length }, (_, index) => from + index * step);
  const columns = series.map((one) => {
    const column: (number | null)[] = new Array<number | null>(length).fill(null);
    for (const [seconds, text] of one.values ?? []) {
      const number = Number(text);
      const index = Math.round((seconds - from) / step);
      if (Number.isFinite(number) && index >= 0 && index < length) column[index] = number;
    }
    return column;
  });
  return [times, ...columns];
}

function draw(
  element: HTMLElement,
  series: Series[],
  table: uPlot.AlignedData,
  setAt: (index: number | null) => void,
): uPlot {
  const style = getComputedStyle(element);
  const colour = (name: string) => style.getPropertyValue(name).trim();
  const axis: uPlot.Axis = {
    stroke: colour("--ink-soft"),
    grid: { stroke: colour("--rule"), width: 1 },
    ticks: { show: false },
    font: `13px ${style.fontFamily}`,
  };
  return new uPlot(
    {
      width: element.clientWidth,
      height: HEIGHT_PX,
      legend: { show: false },
      cursor: { points: { size: 7 }, drag: { x: false, y: false } },
      axes: [
        { ...axis, space: 110, values: (_plot, ticks) => ticks.map((tick) => when(tick * 1000, Date.now()).replace(/:00$/, "")) },
        { ...axis, size: 76, values: (_plot, ticks) => ticks.map(short) },
      ],
      series: [
        {},
        ...series.map((one, index) => ({
          label: nameOf(one.metric),
          stroke: colour(ink(index)),
          width: 2,
          dash: dash(index),
          points: { show: (one.values?.length ?? 0) < 60, size: 5, fill: colour(ink(index)) },
          spanGaps: false,
        })),
      ],
      hooks: { setCursor: [(plot) => setAt(plot.cursor.idx ?? null)] },
    },
    table,
    element,
  );
}
