/** The scale of bars. */

import type { Figure } from "./figures";

export type Scale = [number, number];

// Numbers beyond this many times the third quartile are cut off, so that one leaves something of the
// others.
const MOST = 10;

/** Return where the bars of figures begin and end: 0 and all numbers but outliers lie between.
 *
 * Numbers up to 1 are never cut off: shares and correlations are skewed, and have no outliers. */
export function scaleOf(figures: Figure[]): Scale {
  const sizes = figures
    .map(({ value }) => Math.abs(value ?? 0))
    .filter((size) => size > 0)
    .sort((a, b) => a - b);
  const limit = Math.max(1, MOST * (sizes[Math.floor(0.75 * (sizes.length - 1))] ?? 0));
  const numbers = figures.flatMap(({ value, ci_low, ci_high, chance }) => [value, ci_low, ci_high, chance]);
  const kept = numbers.filter((x): x is number => x !== null && Math.abs(x) <= limit);
  return [Math.min(0, ...kept), Math.max(0, ...kept)];
}
