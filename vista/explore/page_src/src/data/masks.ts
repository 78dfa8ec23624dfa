/** Masks of objects: COCO's compressed run lengths as paths. vista/data/masks.py has the format. */

// Beyond this a mask would hold up the page.
const LONGEST = 400_000;

/** A mask as the `d` of two paths, in px of the image. */
export interface MaskPaths {
  area: string;
  outline: string;
}

/** Return the runs of a text, the first of background; undefined where it is no run-length code. */
export function runsOf(text: string): number[] | undefined {
  const runs: number[] = [];
  for (let at = 0; at < text.length; ) {
    let [value, unit, digit] = [0, 1, 0];
    do {
      digit = text.charCodeAt(at++) - 48;
      // NaN at the end; 2 ** 40 px are more than any image has.
      if (!(digit >= 0 && digit < 64) || unit > 2 ** 40) return undefined;
      value += (digit & 0x1f) * unit;
      unit *= 32;
    } while (digit & 0x20);
    if (digit & 0x10) value -= unit;
    if (runs.length > 2) value += runs[runs.length - 2]!;
    runs.push(value);
  }
  return runs;
}

/** Return the rows from, to of a mask by column; undefined where the text is no mask of this size. */
export function columnsOf(text: string, width: number, height: number): [number, number][][] | undefined {
  const runs = text.length > LONGEST ? undefined : runsOf(text);
  if (!runs || runs.some((run) => run < 0) || runs.reduce((sum, run) => sum + run, 0) !== width * height) return undefined;
  const columns: [number, number][][] = Array.from({ length: width }, () => []);
  let start = 0;
  runs.forEach((run, n) => {
    const stop = start + run;
    for (let at = start; n % 2 === 1 && at < stop; ) {
      const column = Math.floor(at / height);
      const last = Math.min(stop, (column + 1) * height);
      columns[column]!.push([at - column * height, last - column * height]);
      at = last;
    }
    start = stop;
  });
  return columns;
}

/** Return the paths of a mask; undefined where the text is no mask of an image of this size. */
export function maskPaths(text: string, width: number, height: number): MaskPaths | undefined {
  const columns = columnsOf(text, width, height);
  if (!columns) return undefined;
  const [area, outline]: [string[], string[]] = [[], []];
  for (let x = 0; x <= width; x++) {
    const rows = columns[x] ?? [];
    for (const [from, to] of rows) {
      area.push(`M${x} ${from}h1V${to}h-1z`);
      outline.push(`M${x} ${from}h1M${x} ${to}h1`);
    }
    for (const [from, to] of differing(columns[x - 1] ?? [], rows)) outline.push(`M${x} ${from}V${to}`);
  }
  return { area: area.join(""), outline: outline.join("") };
}

/** Return where one of two columns has the mask and the other has not. */
function differing(left: [number, number][], right: [number, number][]): [number, number][] {
  const edges = [...left, ...right].flat().sort((a, b) => a - b);
  const pairs: [number, number][] = [];
  for (let n = 0; n < edges.length; n += 2) {
    if (edges[n]! < edges[n + 1]!) pairs.push([edges[n]!, edges[n + 1]!]);
  }
  return pairs;
}
