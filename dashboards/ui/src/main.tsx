/** The front door of the page: which path shows what. */

import { render } from "preact";
import { useEffect } from "preact/hooks";

import { Call } from "./call/call";
import { Calls } from "./calls";
import { Explore } from "./explore/explore";
import { startLive } from "./live/live";
import { Login } from "./login";
import { Logs } from "./logs";
import { Overview } from "./overview/overview";
import { Example, PageView } from "./overview/page";
import { here, startRouter } from "./router";
import { RunbookList, RunbookPage } from "./runbooks";
import { Shell } from "./shell";

import "uplot/dist/uPlot.min.css";
import "./style/base.css";
import "./style/overview.css";
import "./style/detail.css";
import "./style/explore.css";

function App() {
  const path = here.value.path;
  if (path === "/login") return <Login />;
  return <LoggedIn path={path} />;
}

function LoggedIn({ path }: { path: string }) {
  useEffect(startLive, []);
  const [, room, name, part, number] = path.split("/").map(decode);
  if (!room) return <Overview />;
  if (room === "calls" && name) return <Call key={name} id={name} />;
  if (room === "calls") return <Calls />;
  if (room === "logs") return <Logs />;
  if (room === "explore") return <Explore />;
  if (room === "runbooks" && name) return <RunbookPage key={name} name={name} />;
  if (room === "runbooks") return <RunbookList />;
  if (room === "pages" && name && part === "examples" && number) return <Example id={name} number={number} />;
  if (room === "pages" && name) return <PageView key={name} id={name} />;
  return (
    <Shell>
      <section class="empty">
        <h1>There is nothing here</h1>
        <p>
          <a href="/">Overview</a>
        </p>
      </section>
    </Shell>
  );
}

function decode(part: string): string {
  try {
    return decodeURIComponent(part);
  } catch {
    return part;
  }
}

startRouter();
const root = document.getElementById("root");
if (root) render(<App />, root);
