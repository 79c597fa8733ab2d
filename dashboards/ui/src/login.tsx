/** The way in. A plain form: password keepers know it, and it needs nothing of the rest. */

import { useEffect } from "preact/hooks";

import { here } from "./router";

const WHY: Record<string, string> = {
  wrong: "The name or the password is not right.",
  slow: "Too many wrong passwords. Wait a moment and try again.",
  full: "Too many people are logged in. Ask one of them to log out.",
  busy: "The server is checking other passwords. Try again in a moment.",
};

export function Login() {
  const query = new URLSearchParams(here.value.query);
  const why = WHY[query.get("error") ?? ""];
  useEffect(() => {
    document.title = "Log in \u00b7 Belfry";
  }, []);
  return (
    <main class="login" id="main">
      <form method="post" action="/login">
        <h1>Belfry</h1>
        <p>Control tower. Log in to see the site.</p>
        {why && (
          <p class="refused" role="alert">
            {why}
          </p>
        )}
        <input type="hidden" name="next" value={query.get("next") ?? "/"} />
        <label>
          Name
          <input name="name" autocomplete="username" required autofocus maxLength={64} />
        </label>
        <label>
          Password
          <input name="password" type="password" autocomplete="current-password" required maxLength={256} />
        </label>
        <button type="submit">Log in</button>
      </form>
    </main>
  );
}
