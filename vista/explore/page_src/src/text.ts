/** Numbers and texts as a person reads them. */

/** Return a number with three significant digits. */
export function number(value: number | null | undefined): string {
  if (value === null || value === undefined || Number.isNaN(value)) return "–";
  if (value === 0) return "0";
  const size = Math.abs(value);
  if (size >= 1e5 || size < 1e-3) return value.toExponential(1).replace("e+", "e");
  return String(Number(value.toPrecision(3)));
}

/** Return a share as a percentage. */
export function percent(share: number | null | undefined): string {
  if (share === null || share === undefined || Number.isNaN(share)) return "–";
  if (share === 0) return "0 %";
  if (share < 0.001) return "< 0.1 %";
  return `${Number((share * 100).toPrecision(share < 0.1 ? 2 : 3))} %`;
}

/** Return a context as its parts; the middle one is the token, which stands in «». */
export function marked(context: string): [string, string, string] {
  const found = /^(.*?)«(.*?)»(.*)$/s.exec(context);
  return found ? [found[1]!, found[2]!, found[3]!] : [context, "", ""];
}

/** Return "1 image", "2 images". */
export function count(n: number, noun: string): string {
  return `${n.toLocaleString("en")} ${noun}${n === 1 ? "" : "s"}`;
}
