/** Where we are. Plain links work: clicks on links of our own are turned into navigation without a reload. */

import { signal } from "@preact/signals";

export interface Place {
  path: string;
  /** With its `?`, or empty. */
  query: string;
}

export const here = signal<Place>(read());

export function go(url: string): void {
  history.pushState(null, "", url);
  here.value = read();
  scrollTo(0, 0);
}

/** Changes the address without a new step in the history: for filters and redirects. */
export function redirect(url: string): void {
  history.replaceState(null, "", url);
  here.value = read();
}

export function startRouter(): void {
  addEventListener("popstate", () => (here.value = read()));
  addEventListener("click", (event) => {
    if (event.defaultPrevented || event.button !== 0) return;
    if (event.metaKey || event.ctrlKey || event.shiftKey || event.altKey) return;
    const link = (event.target as Element | null)?.closest?.("a");
    if (!link || link.target || link.origin !== location.origin || link.hasAttribute("data-reload")) return;
    if (link.hash && link.pathname === location.pathname) return;
    event.preventDefault();
    go(link.pathname + link.search);
  });
}

function read(): Place {
  return { path: location.pathname, query: location.search };
}
