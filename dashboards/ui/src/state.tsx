/** The five states of a cell: each has a glyph, a letter, a word and a colour, so none is told by colour alone. */

import { words } from "./format";
import type { Cell, State } from "./wire";

export const LETTER: Record<State, string> = { ok: "OK", warning: "W", critical: "C", stale: "S", not_deployed: "" };

const WORST_FIRST: State[] = ["critical", "warning", "stale", "ok", "not_deployed"];

/** The worst state among the cells, and the cells that are in it. */
export function worst(cells: Cell[]): { state: State; cells: Cell[] } {
  for (const state of WORST_FIRST) {
    const found = cells.filter((cell) => cell.state === state);
    if (found.length > 0) return { state, cells: found };
  }
  return { state: "not_deployed", cells: [] };
}

export function Glyph({ state }: { state: State }) {
  return (
    <svg class="glyph" viewBox="0 0 20 20" aria-hidden="true">
      {state === "ok" && <path d="M3.500 10.500 8 15 16.500 5" fill="none" stroke="currentColor" stroke-width="2.2" />}
      {state === "warning" && <path d="M10 2 19 18H1z" fill="currentColor" />}
      {state === "critical" && <path d="M2 2h16v16H2z" fill="currentColor" />}
      {state === "stale" && (
        <path
          d="M5.500 6.500C5.500 3.800 7.500 2 10.200 2s4.600 1.700 4.600 4.200c0 3.600-4.100 3.700-4.100 7M10.600 15.600v2.600"
          fill="none"
          stroke="currentColor"
          stroke-width="2.6"
        />
      )}
    </svg>
  );
}

/** Glyph and letter in the state's colour; the word is for screen readers unless it is shown beside. */
export function StateMark({ state, silent = false }: { state: State; silent?: boolean }) {
  return (
    <span class={`mark is-${state}`}>
      <Glyph state={state} />
      <b aria-hidden="true">{LETTER[state]}</b>
      {!silent && <span class="sr">{words(state)}</span>}
    </span>
  );
}
