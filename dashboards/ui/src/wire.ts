/**
 * What the server says, as TypeScript sees it: the twin of `dashboards/server/src/json.rs`.
 *
 * Times are milliseconds since the Unix epoch with a fraction, ratios are 0 to 1, absent values are null.
 */

export type State = "ok" | "warning" | "critical" | "stale" | "not_deployed";

export interface Cell {
  region: string;
  journey: string;
  state: State;
  since_ms: number;
  good_ratio_5m: number | null;
  events_per_second: number;
  last_event_ms: number | null;
}

export interface Slo {
  name: string;
  journey: string;
  region: string;
  objective_ratio: number;
  good: number;
  bad: number;
  budget_remaining_ratio: number;
  burn_1h: number;
  burn_6h: number;
  exhaustion_seconds: number | null;
  coverage_ratio: number;
  /** What `burn_1h` and `burn_6h` are measured over: an hour and six of a month, scaled to the objective's period. */
  windows: BurnWindow[];
}

export interface BurnWindow {
  seconds: number;
  /** From this burn rate on it alerts. */
  factor: number;
  severity: "page" | "ticket";
  is_burning: boolean;
}

export interface CauseCount {
  cause: string;
  count: number;
}

export interface Page {
  id: string;
  alert: string;
  journey: string;
  /** Where it is worst. */
  region: string;
  regions: string[];
  room: string;
  causes: CauseCount[];
  state: "triggered" | "resolved";
  triggered_ms: number;
  resolved_ms: number | null;
  summary: string;
  examples: number;
  has_runbook: boolean;
  handled: Handled | null;
}

/** What people do about a page: acknowledged, or resolved at the service although it goes on here. */
export interface Handled {
  state: "acknowledged" | "resolved";
  by: string | null;
  comment: string;
  /** Where it was said; empty when it was said here. */
  service: string;
  since_ms: number;
}

export interface Change {
  at_ms: number;
  kind: string;
  text: string;
}

export interface Peer {
  name: string;
  service: string;
  up: boolean;
}

export interface Snapshot {
  at_ms: number;
  site: string;
  cells: Cell[];
  slos: Slo[];
  pages: Page[];
  changes: Change[];
  peers: Peer[];
}

/** One trend point of one cell: events per second, and the state at that time. */
export type TrendPoint = [rate: number, state: State];

export interface Trend {
  step_ms: number;
  points_max: number;
  cells: { region: string; journey: string; points: TrendPoint[] }[];
}

export interface CallList {
  calls: CallRow[];
  has_more: boolean;
  is_damaged: boolean;
}

export interface LogList {
  lines: LogLine[];
  has_more: boolean;
  is_damaged: boolean;
}

export interface Heartbeat {
  at_ms: number;
  interval_ms: number;
  /** Which page is built in at the server. */
  page: string;
}

export interface CallRow {
  call_id: string;
  trace_id: string;
  start_ms: number;
  end_ms: number | null;
  answer_ms: number | null;
  caller: string;
  callee: string;
  region: string;
  country: string | null;
  transport: string;
  tenant: string | null;
  calling_trunk: string | null;
  called_trunk: string | null;
  outcome: string;
  status_code: number;
  cause: string;
  post_dial_seconds: number | null;
  mos_min: number | null;
  mos_mean: number | null;
  silent_legs: string[];
}

export interface Message {
  at_ms: number;
  direction: "received" | "sent";
  transport: string;
  peer: string;
  node: string;
  summary: string;
  cseq: string;
  retransmission: boolean;
  text: string;
}

export interface Span {
  span_id: string;
  parent_id: string | null;
  component: string;
  name: string;
  kind: string;
  start_ms: number;
  end_ms: number;
  ok: boolean;
  attributes: [string, string][];
}

export interface Quality {
  at_ms: number;
  leg: string;
  region: string;
  window_seconds: number;
  packets: number;
  lost: number;
  jitter_ms: number;
  rtt_ms: number | null;
  mos: number | null;
  r_factor: number | null;
  payload_type: number | null;
}

export interface LogLine {
  at_ms: number;
  severity: "DEBUG" | "INFO" | "WARN" | "ERROR";
  component: string;
  message: string;
  attributes: [string, string][];
  trace_id: string | null;
  call_id: string | null;
}

export interface CallDetail {
  call_id: string;
  trace_id: string | null;
  summary: CallRow | null;
  messages: Message[];
  spans: Span[];
  quality: Quality[];
  logs: LogLine[];
  is_cut: boolean;
  is_damaged: boolean;
}

export interface Runbook {
  name: string;
  title: string;
  html: string;
}

export interface RunbookTitle {
  name: string;
  title: string;
}
