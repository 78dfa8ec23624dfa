/** What the records say of an image. */

import { isSingle } from "../data/geometry";
import type { Geometry } from "../data/geometry";
import { classes } from "../data/records";
import type { ImageRecord } from "../data/records";

/** @param geometry How the image lies on a grid; undefined: on none. */
export function About({ record, geometry }: { record: ImageRecord; geometry?: Geometry }) {
  const shown = classes(record);
  return (
    <dl class="about">
      <dt>image</dt>
      <dd>
        {record.id} <span class="muted">{record.split} · {record.width} × {record.height} px{geometry && ` · ${gridWords(geometry)}`}</span>
      </dd>
      {shown.length > 0 && (
        <>
          <dt>shows</dt>
          <dd>{shown.join(", ")}</dd>
        </>
      )}
      {record.captions[0] && (
        <>
          <dt>caption</dt>
          <dd>{record.captions[0]}</dd>
        </>
      )}
    </dl>
  );
}

/** Return what is said of a grid, and of the parts of the image that it has or lacks. */
function gridWords(geometry: Geometry): string {
  const { image, size, rows, columns } = geometry;
  const words = [isSingle(geometry) ? "one token for the image" : `${rows} × ${columns} patches`];
  if (image.width < size || image.height < size) words.push("padding is hatched");
  if (image.width > size || image.height > size) words.push("dimmed parts are not seen");
  return words.join(" · ");
}
