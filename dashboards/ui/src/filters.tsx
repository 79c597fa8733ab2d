/** Filters that live in the address, so that a search can be sent to a colleague. */

import type { TargetedEvent } from "preact";
import { useState } from "preact/hooks";

import { count } from "./format";
import { here, redirect } from "./router";

export function param(name: string): string {
  return new URLSearchParams(here.value.query).get(name) ?? "";
}

export function setParam(name: string, value: string): void {
  const query = new URLSearchParams(here.value.query);
  if (value) query.set(name, value);
  else query.delete(name);
  const text = query.toString();
  redirect(here.value.path + (text && `?${text}`));
}

interface SelectProps {
  label: string;
  name: string;
  options: [value: string, title: string][];
}

export function Select({ label, name, options }: SelectProps) {
  const onChange = (event: TargetedEvent<HTMLSelectElement>) => setParam(name, event.currentTarget.value);
  return (
    <label class="field">
      <span>{label}</span>
      <select name={name} value={param(name)} onChange={onChange}>
        {options.map(([value, title]) => (
          <option key={value} value={value}>
            {title}
          </option>
        ))}
      </select>
    </label>
  );
}

/** The search language is the same for logs and calls; the server explains mistakes. */
export function QueryBox({ label, hint }: { label: string; hint: string }) {
  const [text, setText] = useState(param("q"));
  const search = (event: TargetedEvent<HTMLFormElement>) => {
    event.preventDefault();
    setParam("q", text.trim());
  };
  return (
    <form class="query-box" role="search" onSubmit={search}>
      <label class="sr" for="q">
        {label}
      </label>
      <input
        id="q"
        name="q"
        type="search"
        value={text}
        placeholder={hint}
        spellcheck={false}
        autocomplete="off"
        onInput={(event) => setText(event.currentTarget.value)}
      />
      <button type="submit">Search</button>
    </form>
  );
}

/** How many rows, and how far they can be trusted. */
export function Count({ rows, has_more, is_damaged }: { rows: number; has_more: boolean; is_damaged: boolean }) {
  return (
    <p class="count">
      {count(rows)} {has_more ? "newest, older ones are not shown" : "in all"}
      {is_damaged && "; parts of the store are damaged and not searched"}
    </p>
  );
}
