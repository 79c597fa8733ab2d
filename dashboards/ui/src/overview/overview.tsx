/** The one page on the wall: everything that matters on one screen, no scrolling, abnormal things loudest. */

import { useEffect } from "preact/hooks";

import { snapshot } from "../live/live";
import { Shell } from "../shell";
import { worst } from "../state";
import { Changes } from "./changes";
import { Grid } from "./grid";
import { Pages } from "./pages";
import { Slos } from "./slos";
import { Strip } from "./strip";

export function Overview() {
  const view = snapshot.value;
  useEffect(() => {
    document.title = title(view ? worst(view.cells) : null);
  });
  return (
    <Shell wall>
      <h1 class="sr">Overview</h1>
      {view === null || view.at_ms === 0 ? (
        <p class="waiting">Waiting for the first figures.</p>
      ) : (
        <div class="wall">
          <Strip view={view} />
          <Grid cells={view.cells} />
          <Slos slos={view.slos} />
          <div class="side">
            <Pages pages={view.pages} />
            <Changes changes={view.changes} peers={view.peers} />
          </div>
        </div>
      )}
    </Shell>
  );
}

function title(now: ReturnType<typeof worst> | null): string {
  if (now?.state === "critical") return `\u25a0 ${now.cells.length} critical \u00b7 Belfry`;
  if (now?.state === "warning") return `\u25b2 ${now.cells.length} warning \u00b7 Belfry`;
  if (now?.state === "stale") return `? ${now.cells.length} stale \u00b7 Belfry`;
  return "Belfry";
}
