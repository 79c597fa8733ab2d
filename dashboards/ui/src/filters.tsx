/** Filters that live in the address, so that a search can be sent to a colleague. */

import type { TargetedEvent } from "preact";

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
