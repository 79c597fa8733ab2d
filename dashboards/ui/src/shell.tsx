/** The frame of every page: name, ways to go, how fresh we are, what time it is. */

import type { ComponentChildren } from "preact";

import { clock, clockUtc } from "./format";
import { announcement, link, heard, now, snapshot } from "./live/live";
import { here } from "./router";
import { Glyph } from "./state";

const WAYS: [path: string, title: string][] = [
  ["/", "Overview"],
  ["/calls", "Calls"],
  ["/logs", "Logs"],
  ["/explore", "Explore"],
  ["/runbooks", "Runbooks"],
];

export function Shell({ children, wall = false }: { children: ComponentChildren; wall?: boolean }) {
  return (
    <div class={`frame ${wall ? "is-wall" : ""} ${link.value === "stale" ? "is-unheard" : ""}`}>
      <a class="skip" href="#main" data-reload>
        Skip to the content
      </a>
      <header class="bar">
        <a class="brand" href="/">
          <Bell />
          <span>Belfry</span>
          {snapshot.value?.site && <span class="site">{snapshot.value.site}</span>}
        </a>
        <nav aria-label="Pages">
          {WAYS.map(([path, title]) => (
            <a href={path} aria-current={isUnder(path) ? "page" : undefined}>
              {title}
            </a>
          ))}
        </nav>
        <Freshness />
        <time class="clock">
          <span>{clock(now.value)}</span> <small>{clockUtc(now.value)} UTC</small>
        </time>
        <form class="leave" method="post" action="/logout">
          <button type="submit">Log out</button>
        </form>
      </header>
      {link.value === "stale" && <StaleBanner />}
      <main id="main" tabIndex={-1}>
        {children}
      </main>
      <p class="sr" role="status" aria-live="polite">
        {announcement.value}
      </p>
    </div>
  );
}

/** LIVE or STALE, in words. */
function Freshness() {
  const silence = Math.max(0, Math.round((Date.now() - heard.value) / 1000));
  const state = link.value;
  return (
    <p class={`freshness is-${state}`} data-link={state}>
      {state === "live" && (
        <>
          <span class="pulse" key={Math.floor(heard.value / 1000)} aria-hidden="true" />
          LIVE
        </>
      )}
      {state === "connecting" && "CONNECTING"}
      {state === "stale" && (
        <>
          <Glyph state="stale" />
          STALE {silence} s
        </>
      )}
    </p>
  );
}

function StaleBanner() {
  return (
    <div class="stale-banner" role="alert">
      <Glyph state="stale" />
      <strong>STALE</strong>
      <span>
        Nothing heard from the tower since {clock(heard.value)}. What you see is old. Trying to connect.
      </span>
    </div>
  );
}

function Bell() {
  return (
    <svg class="bell" viewBox="0 0 24 24" aria-hidden="true">
      <path
        fill="currentColor"
        d="M12 2a2 2 0 0 1 2 2v.5c3.500.900 5.500 4 5.500 8 0 4.200 1.200 5.800 2.500 7H2c1.300-1.200 2.500-2.800 2.500-7 0-4 2-7.100 5.500-8V4a2 2 0 0 1 2-2zM9 21h6a3 3 0 0 1-6 0z"
      />
    </svg>
  );
}

function isUnder(path: string): boolean {
  const at = here.value.path;
  return path === "/" ? at === "/" || at.startsWith("/pages/") : at === path || at.startsWith(`${path}/`);
}
