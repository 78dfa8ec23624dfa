/** The scale of heat maps: from weak to strong, the same in light and dark. */

// Points of the colour map "inferno" without its dark end, which would pass for the image.
const STOPS: [number, number, number][] = [
  [87, 16, 110],
  [136, 34, 106],
  [186, 54, 85],
  [227, 89, 51],
  [249, 140, 10],
  [249, 201, 50],
  [252, 255, 164],
];

/** Return the colour of a share from 0 to 1. */
export function heat(share: number): string {
  const at = Math.min(Math.max(share, 0), 1) * (STOPS.length - 1);
  const low = Math.min(Math.floor(at), STOPS.length - 2);
  const [from, to] = [STOPS[low]!, STOPS[low + 1]!];
  const mixed = from.map((value, n) => Math.round(value + (to[n]! - value) * (at - low)));
  return `rgb(${mixed.join(" ")})`;
}

/** Return the whole scale as a CSS gradient. */
export const GRADIENT = `linear-gradient(90deg, ${STOPS.map((stop) => `rgb(${stop.join(" ")})`).join(", ")})`;
