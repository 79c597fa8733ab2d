/** The answers of the HTTP API of Prometheus, as far as this page reads them. */

export interface Enveloped<T> {
  status: "success";
  data: T;
  warnings?: string[];
  infos?: string[];
  explain?: Explained;
}

/** Seconds since the Unix epoch, and the value as text. */
export type Point = [seconds: number, value: string];

export interface HistogramPoint {
  count: string;
  sum: string;
}

export interface Series {
  metric: Record<string, string>;
  values?: Point[];
  value?: Point;
  histograms?: [seconds: number, value: HistogramPoint][];
  histogram?: [seconds: number, value: HistogramPoint];
}

export type Result =
  | { resultType: "matrix"; result: Series[] }
  | { resultType: "vector"; result: Series[] }
  | { resultType: "scalar"; result: Point }
  | { resultType: "string"; result: Point };

/** What each part of a query cost. */
export interface Plan {
  kind: string;
  text: string;
  seconds: number;
  evaluations: number;
  series: number;
  seriesRead: number;
  samplesRead: number;
  values: number;
  below: Plan[];
}

export interface Explained {
  samples: number;
  plan: Plan;
}

export interface Metadata {
  type: string;
  help: string;
  unit: string;
}

export interface FunctionJson {
  name: string;
  argTypes: string[];
  returnType: string;
  isExperimental: boolean;
}
