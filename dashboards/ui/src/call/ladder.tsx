/**
 * The ladder: one lifeline per party, one row per message, the text on click.
 *
 * Rows are buttons in a list, so that the ladder is walked with the keyboard and read by screen readers;
 * the arrows inside them are drawn in per cent of the row, so that they fit any width.
 */

import { useState } from "preact/hooks";

import { party, span } from "../format";
import type { CallRow, Message } from "../wire";

interface Party {
  key: string;
  title: string;
  detail: string;
}

interface Step {
  message: Message;
  from: number;
  to: number;
}

/** Longer silences than this get a row of their own. */
const GAP_MS = 1000;

export function Ladder({ messages: kept, summary, start }: { messages: Message[]; summary: CallRow | null; start: number }) {
  const [chosen, choose] = useState(0);
  if (kept.length === 0) return <p class="quiet">No message of this call is kept.</p>;
  const messages = withPeers(kept);
  const parties = findParties(messages, summary);
  const steps = messages.map((message) => step(message, parties));
  const retransmissions = messages.filter((message) => message.retransmission).length;
  const open = messages[chosen] ?? messages[0];
  return (
    <div class="ladder">
      <div class="ladder-rows">
        <ol class="parties">
          {parties.map((party, index) => (
            <li key={party.key} style={{ left: `calc(var(--times) + (100% - var(--times)) * ${middle(index, parties.length) / 100})` }}>
              <b>{party.title}</b>
              <small>{party.detail}</small>
            </li>
          ))}
        </ol>
        <ol class="rows">
          {steps.map((each, index) => (
            <Row
              key={index}
              step={each}
              parties={parties}
              start={start}
              before={messages[index - 1]}
              chosen={index === chosen}
              onChoose={() => choose(index)}
            />
          ))}
        </ol>
        {retransmissions > 0 && (
          <p class="legend">
            <svg viewBox="0 0 40 10" aria-hidden="true">
              <line class="arrow is-repeated" x1="0" y1="5" x2="40" y2="5" />
            </svg>
            dashed: sent again ({retransmissions})
          </p>
        )}
      </div>
      {open && <Text message={open} start={start} />}
    </div>
  );
}

interface RowProps {
  step: Step;
  parties: Party[];
  start: number;
  before: Message | undefined;
  chosen: boolean;
  onChoose: () => void;
}

function Row({ step, parties, start, before, chosen, onChoose }: RowProps) {
  const { message, from, to } = step;
  const gap = before ? message.at_ms - before.at_ms : 0;
  const code = Number(message.summary);
  const kind = code >= 400 ? "is-refusal" : code >= 100 ? "is-answer" : "is-request";
  const title = message.summary + (code >= 100 ? ` ${message.cseq.split(" ")[1] ?? ""}` : "");
  return (
    <>
      {gap > GAP_MS && (
        <li class="gap">
          <Lifelines parties={parties} />
          <span>{span(gap)} later</span>
        </li>
      )}
      <li>
        <button
          type="button"
          class={`row ${kind} ${message.retransmission ? "is-repeated" : ""}`}
          aria-pressed={chosen}
          onClick={onChoose}
        >
          <span class="row-time num">{offset(message.at_ms - start)}</span>
          <span class="row-lane">
            <Lifelines parties={parties} />
            <Arrow from={middle(from, parties.length)} to={middle(to, parties.length)} repeated={message.retransmission} />
            <span
              class="row-label"
              style={{ left: `${(middle(from, parties.length) + middle(to, parties.length)) / 2}%` }}
            >
              {title}
              {message.retransmission && <small> again</small>}
            </span>
          </span>
          <span class="sr">
            from {parties[from]?.title} to {parties[to]?.title}
          </span>
        </button>
      </li>
    </>
  );
}

function Lifelines({ parties }: { parties: Party[] }) {
  return (
    <svg class="lifelines" aria-hidden="true">
      {parties.map((party, index) => {
        const x = `${middle(index, parties.length)}%`;
        return <line key={party.key} x1={x} x2={x} y1="0" y2="100%" />;
      })}
    </svg>
  );
}

function Arrow({ from, to, repeated }: { from: number; to: number; repeated: boolean }) {
  const head = to > from ? "-9,-5 0,0 -9,5" : "9,-5 0,0 9,5";
  return (
    <svg class="arrows" aria-hidden="true">
      <line class={repeated ? "arrow is-repeated" : "arrow"} x1={`${from}%`} x2={`${to}%`} y1="75%" y2="75%" />
      <svg class="head" x={`${to}%`} y="75%">
        <polygon points={head} />
      </svg>
    </svg>
  );
}

function Text({ message, start }: { message: Message; start: number }) {
  return (
    <aside class="message-text" aria-live="polite">
      <header>
        <b>{message.summary}</b>
        <span class="num">{offset(message.at_ms - start)}</span>
        <span>
          {message.direction} by {message.node}, {message.transport.toUpperCase()} {message.peer}
        </span>
      </header>
      <pre tabIndex={0}>{message.text}</pre>
    </aside>
  );
}

/** A node that sends along a flow may not know the address behind it; the answer to what it sent tells. */
const UNKNOWN_PEER = "0.0.0.0:0";

function withPeers(messages: Message[]): Message[] {
  const known = messages.filter((message) => message.peer !== UNKNOWN_PEER);
  const byBranch = new Map(known.map((message) => [branch(message), message.peer]));
  byBranch.delete("");
  const caller = known.find((message) => message.direction === "received")?.peer;
  const other = known.find((message) => message.peer !== caller)?.peer;
  return messages.map((message) =>
    message.peer === UNKNOWN_PEER ? { ...message, peer: byBranch.get(branch(message)) ?? other ?? message.peer } : message,
  );
}

/** The topmost Via's branch: the same on a request and on its answers, for each hop (RFC 3261 section 8.1.1.7). */
function branch(message: Message): string {
  return /^(?:via|v)\s*:[^\r\n]*?;\s*branch=([^;,\s]+)/im.exec(message.text)?.[1] ?? "";
}

/** The caller's side first, our nodes in the middle, everybody else to the right, in order of appearance. */
function findParties(messages: Message[], summary: CallRow | null): Party[] {
  const nodes = [...new Set(messages.map((message) => message.node))];
  const peers = [...new Set(messages.map((message) => message.peer))];
  const first = messages.find((message) => message.direction === "received")?.peer ?? peers[0];
  const rest = peers.filter((peer) => peer !== first);
  const ours = nodes.map((node) => ({ key: node, title: node, detail: "Belfry" }));
  const caller = first ? [{ key: first, title: summary ? party(summary.caller) : "caller", detail: first }] : [];
  const callees = rest.map((peer, index) => ({
    key: peer,
    title: index === 0 && summary ? party(summary.callee) : "callee",
    detail: peer,
  }));
  return [...caller, ...ours, ...callees];
}

function step(message: Message, parties: Party[]): Step {
  const peer = parties.findIndex((party) => party.key === message.peer);
  const node = parties.findIndex((party) => party.key === message.node);
  return message.direction === "received" ? { message, from: peer, to: node } : { message, from: node, to: peer };
}

function middle(index: number, parties: number): number {
  return ((index + 0.5) / parties) * 100;
}

function offset(milliseconds: number): string {
  return `${(milliseconds / 1000).toFixed(3)} s`;
}

