/** Series and numbers as people read them. */

/** `name{label="value"}`. */
export function nameOf(metric: Record<string, string>): string {
  const { __name__: name = "", ...labels } = metric;
  const inner = Object.entries(labels).map(([label, value]) => `${label}=${JSON.stringify(value)}`).join(", ");
  return inner || !name ? `${name}{${inner}}` : name;
}

/** A number in few letters: `1,240`, `0.00225`, `1.2e+12`. */
export function short(value: number): string {
  const size = Math.abs(value);
  if (size !== 0 && (size >= 1e12 || size < 1e-6)) return value.toExponential(2);
  if (size >= 1000) return value.toLocaleString("en", { maximumFractionDigits: 0 });
  return String(Number(value.toPrecision(4)));
}
