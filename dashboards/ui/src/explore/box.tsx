/** Where a query is written: several lines, completion by name, label and value, and its fault pointed at. */

import type { TargetedInputEvent, TargetedKeyboardEvent } from "preact";
import { useEffect, useRef, useState } from "preact/hooks";

import { faultOf } from "./complete";
import { offersAt, type Offer, type Offers } from "./vocabulary";

interface Props {
  text: string;
  /** What the server said against it. */
  why: string | null;
  onRun: (text: string) => void;
}

const NONE: Offers = { from: 0, list: [] };
const LINES_MAX = 12;

export function PromqlBox({ text: given, why, onRun }: Props) {
  const [text, setText] = useState(given);
  const [offers, setOffers] = useState(NONE);
  const [chosen, setChosen] = useState(0);
  const area = useRef<HTMLTextAreaElement>(null);
  const asked = useRef(0);
  useEffect(() => setText(given), [given]);

  const close = () => {
    asked.current += 1;
    setOffers(NONE);
  };
  const offer = async (now: string, caret: number, always: boolean) => {
    const number = (asked.current += 1);
    const found = await offersAt(now, caret);
    // Who has written on is offered something else.
    if (asked.current !== number) return;
    const isWhole = found.list.length === 1 && now.slice(found.from, caret) === found.list[0]?.text;
    const isBegun = always || caret > found.from || /[{,("]\s*$/.test(now.slice(0, caret));
    setOffers(isBegun && !isWhole ? found : NONE);
    setChosen(0);
  };
  const take = (one: Offer) => {
    const element = area.current;
    if (!element) return;
    const caret = element.selectionStart;
    const rest = text.slice(caret);
    const tail = one.tail && rest.startsWith(one.tail[0] ?? "") ? "" : one.tail;
    const next = text.slice(0, offers.from) + one.text + tail + rest;
    const at = offers.from + one.text.length + tail.length;
    setText(next);
    close();
    // The caret is set when the text is there.
    requestAnimationFrame(() => {
      element.focus();
      element.setSelectionRange(at, at);
      if (tail.endsWith('"')) void offer(next, at, false);
    });
  };
  const run = () => {
    close();
    onRun(text.trim());
  };
  const onKeyDown = (event: TargetedKeyboardEvent<HTMLTextAreaElement>) => {
    const { key } = event;
    const isOpen = offers.list.length > 0;
    if (key === " " && event.ctrlKey) {
      void offer(text, event.currentTarget.selectionStart, true);
    } else if (isOpen && (key === "ArrowDown" || key === "ArrowUp")) {
      const step = key === "ArrowDown" ? 1 : offers.list.length - 1;
      setChosen((chosen + step) % offers.list.length);
    } else if (isOpen && (key === "Enter" || key === "Tab") && !event.shiftKey) {
      const one = offers.list[chosen];
      if (one) take(one);
    } else if (isOpen && key === "Escape") {
      close();
    } else if (key === "Enter" && !event.shiftKey) {
      run();
    } else {
      return;
    }
    event.preventDefault();
  };
  const onInput = (event: TargetedInputEvent<HTMLTextAreaElement>) => {
    setText(event.currentTarget.value);
    void offer(event.currentTarget.value, event.currentTarget.selectionStart, false);
  };
  const isOpen = offers.list.length > 0;
  return (
    <form
      class="promql"
      onSubmit={(event) => {
        event.preventDefault();
        run();
      }}
    >
      <div class="promql-line">
        <label class="sr" for="promql">
          Query in PromQL
        </label>
        <div class="promql-box">
          <textarea
            id="promql"
            ref={area}
            rows={Math.min(LINES_MAX, Math.max(1, text.split("\n").length))}
            value={text}
            placeholder="a metric, or a query as sum by (region) (rate(core_call_attempts_total[5m]))"
            spellcheck={false}
            autocomplete="off"
            autocapitalize="off"
            aria-autocomplete="list"
            aria-haspopup="listbox"
            aria-controls="promql-offers"
            aria-activedescendant={isOpen ? `promql-offer-${chosen}` : undefined}
            aria-describedby={why === null ? "promql-keys" : "promql-keys promql-fault"}
            aria-invalid={why !== null}
            onInput={onInput}
            onKeyDown={onKeyDown}
            onBlur={close}
          />
          <ul id="promql-offers" role="listbox" aria-label="Completions" hidden={!isOpen}>
            {offers.list.map((one, index) => (
              <li
                key={one.text}
                id={`promql-offer-${index}`}
                role="option"
                aria-selected={index === chosen}
                // Before the field loses the focus.
                onMouseDown={(event) => {
                  event.preventDefault();
                  take(one);
                }}
              >
                <code>{one.text}</code>
                <small>{one.note}</small>
              </li>
            ))}
          </ul>
        </div>
        <button type="submit">Run</button>
      </div>
      <p class="keys" id="promql-keys">
        Enter runs, Shift+Enter begins a line, Ctrl+Space completes
      </p>
      {why !== null && <Fault text={given} why={why} />}
    </form>
  );
}

/** What is wrong, with a mark below the place where it is. */
function Fault({ text, why }: { text: string; why: string }) {
  const fault = faultOf(text, why);
  return (
    <div class="refused fault" id="promql-fault" role="alert">
      {fault ? (
        <>
          <pre aria-hidden="true">
            {fault.line}
            {"\n"}
            {" ".repeat(fault.letters)}^
          </pre>
          <p>
            At letter {fault.letters + 1}: {fault.what}
          </p>
        </>
      ) : (
        <p>{why}</p>
      )}
    </div>
  );
}
