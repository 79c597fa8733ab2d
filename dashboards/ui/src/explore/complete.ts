/** What may stand where the caret is in a query. Pure: what there is to offer comes from `vocabulary.ts`. */

/** What is being written, from `from` up to the caret. */
export type Place =
  | { is: "expression"; from: number; word: string }
  | { is: "label"; from: number; word: string; metric: string }
  | { is: "value"; from: number; word: string; metric: string; label: string }
  | { is: "duration"; from: number; word: string }
  | { is: "nothing" };

const WORD = /[A-Za-z0-9_:]*$/;
const GROUPING = /\b(?:by|without|on|ignoring|group_left|group_right)\s*\([^()]*$/;

/** The place of the caret. Inside a text that is no label's value, and in a comment, nothing is offered. */
export function placeOf(text: string, caret: number): Place {
  const before = text.slice(0, caret);
  const open = scan(before);
  if (open.is === "comment") return { is: "nothing" };
  if (open.is === "text") {
    const label = /([A-Za-z_][A-Za-z0-9_]*)\s*(?:=~|!~|!=|=)\s*$/.exec(before.slice(0, open.at))?.[1];
    if (!open.within || !label) return { is: "nothing" };
    return { is: "value", from: open.at + 1, word: before.slice(open.at + 1), metric: metricBefore(before, open.brace), label };
  }
  const word = WORD.exec(before)?.[0] ?? "";
  const from = caret - word.length;
  if (open.within === "{") {
    // After a label comes an operator, which is short enough to write.
    return /[{,]\s*$/.test(before.slice(0, from))
      ? { is: "label", from, word, metric: metricBefore(before, open.brace) }
      : { is: "nothing" };
  }
  if (open.within === "[") return { is: "duration", from, word };
  if (GROUPING.test(before)) return { is: "label", from, word, metric: firstMetric(text) };
  // A number is no beginning of a name.
  return /^\d/.test(word) ? { is: "nothing" } : { is: "expression", from, word };
}

interface Open {
  is: "code" | "text" | "comment";
  /** Where the text began. */
  at: number;
  /** The bracket that is still open. */
  within: "{" | "[" | "";
  /** Where it stands. */
  brace: number;
}

function scan(before: string): Open {
  const open: Open = { is: "code", at: 0, within: "", brace: 0 };
  let quote = "";
  for (let at = 0; at < before.length; at += 1) {
    const letter = before[at] ?? "";
    if (open.is === "comment") {
      if (letter === "\n") open.is = "code";
    } else if (open.is === "text") {
      if (letter === "\\" && quote !== "`") at += 1;
      else if (letter === quote) open.is = "code";
    } else if (letter === '"' || letter === "'" || letter === "`") {
      [open.is, open.at, quote] = ["text", at, letter];
    } else if (letter === "#") {
      open.is = "comment";
    } else if (letter === "{" || letter === "[") {
      [open.within, open.brace] = [letter, at];
    } else if (letter === "}" || letter === "]") {
      open.within = "";
    }
  }
  return open;
}

function metricBefore(before: string, brace: number): string {
  return /([A-Za-z_:][A-Za-z0-9_:]*)\s*$/.exec(before.slice(0, brace))?.[1] ?? "";
}

/** The first name with an underscore: what is grouped is usually of it. */
function firstMetric(text: string): string {
  return /\b(?!group_left|group_right)[a-z][A-Za-z0-9:]*_[A-Za-z0-9_:]*(?!\s*\()\b/.exec(text)?.[0] ?? "";
}

/** The best of what is offered: what begins with the word, then what holds it, each in order. */
export function best<T extends { text: string }>(offered: T[], word: string, most: number): T[] {
  const wanted = word.toLowerCase();
  const begins = offered.filter((one) => one.text.toLowerCase().startsWith(wanted));
  const holds = wanted === "" ? [] : offered.filter((one) => one.text.toLowerCase().indexOf(wanted) > 0);
  return [...begins, ...holds].slice(0, most);
}

/** The line and the letter that an error names, if it names one: both from 1, the column in bytes of UTF-8. */
export function faultOf(text: string, why: string): { line: string; letters: number; what: string } | null {
  const found = /(\d+):(\d+): parse error: ([\s\S]*)/.exec(why);
  if (!found) return null;
  const line = text.split("\n")[Number(found[1]) - 1];
  if (line === undefined) return null;
  const bytes = new TextEncoder().encode(line).slice(0, Math.max(0, Number(found[2]) - 1));
  return { line, letters: [...new TextDecoder().decode(bytes)].length, what: found[3] ?? "" };
}
