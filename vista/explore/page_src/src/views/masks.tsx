/** The masks of an image's objects. */

import { useMemo } from "preact/hooks";
import type { Geometry } from "../data/geometry";
import { maskPaths } from "../data/masks";
import type { ImageRecord } from "../data/records";

const COLOURS = 6;

export function hasMasks({ objects }: ImageRecord): boolean {
  return objects.some(({ mask }) => mask !== null);
}

/** Each mask filled and outlined, in a colour of its own; one that cannot be read is left out. */
export function Masks({ geometry, record }: { geometry: Geometry; record: ImageRecord }) {
  const { width, height, objects } = record;
  const paths = useMemo(() => objects.map(({ mask }) => (mask === null ? undefined : maskPaths(mask, width, height))), [record]);
  const { x, y } = geometry.image;
  const scale = [geometry.image.width / width, geometry.image.height / height];
  return (
    <g class="masks" transform={`translate(${x} ${y}) scale(${scale.join(" ")})`}>
      {paths.map(
        (path, n) =>
          path && (
            <g key={n} class={`mask m${n % COLOURS}`}>
              <path class="mask-area" d={path.area} />
              <path class="mask-line" d={path.outline} />
            </g>
          ),
      )}
    </g>
  );
}
