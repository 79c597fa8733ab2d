/** What people and faults did lately, on the same clock as everything else; and the links between nodes. */

import { when, words } from "../format";
import { now } from "../live/live";
import { StateMark } from "../state";
import type { Change, Peer } from "../wire";

const CHANGES_MAX = 24;

export function Changes({ changes, peers }: { changes: Change[]; peers: Peer[] }) {
  const newest = changes.toSorted((a, b) => b.at_ms - a.at_ms).slice(0, CHANGES_MAX);
  const down = peers.filter((peer) => !peer.up);
  return (
    <section class="panel changes" aria-labelledby="changes-title">
      <header>
        <h2 id="changes-title">Changes and faults</h2>
      </header>
      <div class="scroll" tabIndex={0} role="group" aria-labelledby="changes-title">
        {down.map((peer) => (
          <p class="peer-down" key={peer.name + peer.service}>
            <StateMark state="critical" /> Link to {peer.name} ({peer.service}) is down
          </p>
        ))}
        {newest.length === 0 && <p class="quiet">Nothing was changed since the start.</p>}
        <ol>
          {newest.map((change) => (
            <li key={change.at_ms + change.text}>
              <time class="num">{when(change.at_ms, now.value)}</time>
              <span class="kind">{words(change.kind)}</span>
              <span>{change.text}</span>
            </li>
          ))}
        </ol>
      </div>
    </section>
  );
}
