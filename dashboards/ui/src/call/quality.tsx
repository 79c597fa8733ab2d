/** How it sounded: score, loss and jitter of each leg on one time axis, and the same numbers as a table. */

import { useEffect, useRef } from "preact/hooks";
import uPlot from "uplot";

import { MOS_GOOD } from "../calls";
import { clock } from "../format";
import type { Quality } from "../wire";

interface Measure {
  title: string;
  unit: string;
  read: (window: Quality) => number | null;
  range: [low: number, high: number | null];
  /** The value that the abnormal starts at; drawn as a line. */
  limit: number;
  low_is_bad?: boolean;
}

const MEASURES: Measure[] = [
  { title: "MOS", unit: "", read: (w) => w.mos, range: [1, 4.6], limit: MOS_GOOD, low_is_bad: true },
  { title: "Loss", unit: "%", read: (w) => lossPercent(w), range: [0, null], limit: 3 },
  { title: "Jitter", unit: "ms", read: (w) => w.jitter_ms, range: [0, null], limit: 30 },
];

/** Legs differ by dash, not by colour: colour is kept for what is abnormal. */
const DASHES = [[], [7, 4], [2, 3]];
/** Labels have no fractions of a second, so ticks have none. */
const SECONDS = [1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 1800, 3600];
const CHART_HEIGHT_PX = 170;

export function QualityCurves({ windows }: { windows: Quality[] }) {
  if (windows.length === 0) return <p class="quiet">No sound was measured: the call was not answered, or was too short.</p>;
  const legs = [...new Set(windows.map((window) => window.leg))];
  return (
    <>
      <p class="legend">
        {legs.map((leg, index) => (
          <span key={leg}>
            <svg viewBox="0 0 40 10" aria-hidden="true">
              <line x1="0" y1="5" x2="40" y2="5" stroke="currentColor" stroke-width="2" stroke-dasharray={DASHES[index]?.join(" ")} />
            </svg>
            sound of the {leg}
          </span>
        ))}
      </p>
      <div class="curves">
        {MEASURES.map((measure) => (
          <Curve key={measure.title} measure={measure} windows={windows} legs={legs} />
        ))}
      </div>
      <details>
        <summary>The same as a table</summary>
        <QualityTable windows={windows} />
      </details>
    </>
  );
}

function Curve({ measure, windows, legs }: { measure: Measure; windows: Quality[]; legs: string[] }) {
  const at = useRef<HTMLDivElement>(null);
  useEffect(() => {
    const element = at.current;
    if (!element) return;
    let plot = draw(element, measure, windows, legs);
    const night = matchMedia("(prefers-color-scheme: dark)");
    const redraw = () => {
      plot.destroy();
      plot = draw(element, measure, windows, legs);
    };
    const resize = new ResizeObserver(() => plot.setSize({ width: element.clientWidth, height: CHART_HEIGHT_PX }));
    resize.observe(element);
    night.addEventListener("change", redraw);
    return () => {
      night.removeEventListener("change", redraw);
      resize.disconnect();
      plot.destroy();
    };
  }, [measure, windows, legs.join()]);
  return (
    <figure>
      <figcaption>
        {measure.title} {measure.unit && <small>{measure.unit}</small>}
      </figcaption>
      <div ref={at} />
    </figure>
  );
}

function draw(element: HTMLElement, measure: Measure, windows: Quality[], legs: string[]): uPlot {
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
      height: CHART_HEIGHT_PX,
      legend: { show: false },
      cursor: { sync: { key: "call" }, points: { size: 7 }, drag: { x: false, y: false } },
      scales: { y: { range: (_plot, _low, high) => [measure.range[0], measure.range[1] ?? top(high, measure.limit)] } },
      axes: [{ ...axis, values: (_plot, seconds) => seconds.map((second) => clock(second * 1000)), space: 90, incrs: SECONDS }, { ...axis, size: 40 }],
      series: [
        {},
        ...legs.map((leg, index) => ({
          label: leg,
          stroke: colour("--ink"),
          width: 2,
          dash: DASHES[index % DASHES.length] ?? [],
          points: { size: 5, fill: colour("--ink") },
          spanGaps: false,
        })),
      ],
      hooks: { drawClear: [(plot) => drawLimit(plot, measure, colour("--rule-strong"), colour("--warning"), colour("--warning-soft"))] },
    },
    table(measure, windows, legs),
    element,
  );
}

/** Draws the limit, and shades its abnormal side when a value is there. */
function drawLimit(plot: uPlot, measure: Measure, plain: string, stroke: string, fill: string): void {
  const { ctx, bbox } = plot;
  const y = plot.valToPos(measure.limit, "y", true);
  const { limit, low_is_bad } = measure;
  const crossed = plot.data.slice(1).some((column) => column.some((value) => value != null && (low_is_bad ? value < limit : value > limit)));
  ctx.save();
  if (crossed) {
    const height = low_is_bad ? bbox.top + bbox.height - y : y - bbox.top;
    ctx.fillStyle = fill;
    ctx.fillRect(bbox.left, low_is_bad ? y : bbox.top, bbox.width, height);
  }
  ctx.strokeStyle = crossed ? stroke : plain;
  ctx.setLineDash([4 * devicePixelRatio, 3 * devicePixelRatio]);
  ctx.lineWidth = devicePixelRatio;
  ctx.beginPath();
  ctx.moveTo(bbox.left, y);
  ctx.lineTo(bbox.left + bbox.width, y);
  ctx.stroke();
  ctx.restore();
}

/** All legs on the union of their times. */
function table(measure: Measure, windows: Quality[], legs: string[]): uPlot.AlignedData {
  const times = [...new Set(windows.map((window) => window.at_ms))].sort((a, b) => a - b);
  const columns = legs.map((leg) => {
    const byTime = new Map(windows.filter((w) => w.leg === leg).map((w) => [w.at_ms, measure.read(w)]));
    // A time that only another leg has is undefined (no point), not null (a gap).
    return times.map((time) => byTime.get(time));
  });
  return [times.map((time) => time / 1000), ...columns];
}

function QualityTable({ windows }: { windows: Quality[] }) {
  return (
    <table class="list">
      <thead>
        <tr>
          <th scope="col">Time</th>
          <th scope="col">Sound of</th>
          <th scope="col" class="num">MOS</th>
          <th scope="col" class="num">R</th>
          <th scope="col" class="num">Packets</th>
          <th scope="col" class="num">Lost</th>
          <th scope="col" class="num">Jitter</th>
          <th scope="col" class="num">Round trip</th>
        </tr>
      </thead>
      <tbody>
        {windows.map((window, index) => (
          <tr key={index}>
            <td class="num">{clock(window.at_ms)}</td>
            <td>{window.leg}</td>
            <td class="num">{window.mos?.toFixed(2) ?? "\u2013"}</td>
            <td class="num">{window.r_factor?.toFixed(1) ?? "\u2013"}</td>
            <td class="num">{window.packets}</td>
            <td class="num">{lossPercent(window).toFixed(1)} %</td>
            <td class="num">{window.jitter_ms.toFixed(1)} ms</td>
            <td class="num">{window.rtt_ms === null ? "\u2013" : `${window.rtt_ms.toFixed(1)} ms`}</td>
          </tr>
        ))}
      </tbody>
    </table>
  );
}

function lossPercent(window: Quality): number {
  const expected = window.packets + window.lost;
  return expected === 0 ? 0 : (window.lost / expected) * 100;
}

function top(high: number | null, limit: number): number {
  return Math.max((high ?? 0) * 1.15, limit * 1.5);
}
