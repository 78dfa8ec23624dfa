/** A small image with the heat map of a latent. */

import { hashOf } from "../address";
import { Geometry } from "../data/geometry";
import type { Placing } from "../data/geometry";
import type { TopImage } from "../data/latents";
import { classes } from "../data/records";
import type { Records } from "../data/records";
import { useLoaded, useSeen } from "../hooks";
import { number } from "../text";
import { Heat, patchName } from "./stage";

interface Props {
  item: TopImage;
  id: string;
  records: Records;
  placing: Placing;
  /** The activation on each token, once it is there. */
  map: Float32Array | undefined;
  most: number;
  link: Record<string, string>;
}

export function Tile({ item, id, records, placing, map, most, link }: Props) {
  const [element, seen] = useSeen<HTMLLIElement>();
  const row = records.row(id);
  const loaded = useLoaded(seen && row !== undefined ? `${records.folder} ${row}` : undefined, () =>
    records.record(row!),
  );
  const record = loaded.value;
  const geometry = record && new Geometry(record.width, record.height, placing);
  const shows = record ? classes(record).join(", ") : "";
  const href = geometry
    ? hashOf({ view: "images", parts: { ...link, image: id, patch: patchName(geometry, item.token) } })
    : "#images";
  return (
    <li class="tile" ref={element}>
      <a href={href} title={record?.captions[0] ?? id} aria-label={`Image ${id}${shows ? `, shows ${shows}` : ""}, activation ${number(item.value)}`}>
        <span class="tile-image">
          {record && geometry && (
            <svg viewBox={`${geometry.extent.x} ${geometry.extent.y} ${geometry.extent.width} ${geometry.extent.height}`} aria-hidden="true">
              <rect class="padding-ground" width={geometry.size} height={geometry.size} />
              <image class={record.width < 128 ? "coarse" : ""} href={records.image(row!, record.width <= 512 ? "images" : "thumbs")} {...geometry.image} preserveAspectRatio="none" />
              {map && <Heat geometry={geometry} map={map} most={most} />}
            </svg>
          )}
        </span>
        <span class="tile-text">
          <span>{number(item.value)}</span> <span class="muted">{shows || id}</span>
        </span>
      </a>
    </li>
  );
}
