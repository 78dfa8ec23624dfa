/** The images of a point: a list of any length with thumbnails, of which what is seen is drawn. */

import { useMemo, useRef, useState } from "preact/hooks";
import { useLoaded, useSettled } from "../hooks";
import { classes } from "../data/records";
import type { ImageRecord, Records } from "../data/records";
import { count } from "../text";
import { Notice } from "./notice";
import { Rows } from "./rows";

const HEIGHT = 56;

interface Props {
  ids: string[];
  records: Records | undefined;
  chosen: string | undefined;
  onChoose: (id: string) => void;
  /** Images at which a chosen latent fires, strongest first. */
  firing: { name: string; ids: Set<string> } | undefined;
}

export function ImageList({ ids, records, chosen, onChoose, firing }: Props) {
  const [query, setQuery] = useState("");
  const [only, setOnly] = useState(false);
  const settled = useSettled(query.trim().toLowerCase(), 200);
  const wanted = settled && records ? `${records.folder} ${ids.length} ${settled}` : undefined;
  const matches = useLoaded(wanted, () => match(ids, records!, settled));
  const shown = useMemo(() => {
    const pool = settled && matches.fresh ? matches.value! : ids;
    return only && firing ? pool.filter((id) => firing.ids.has(id)) : pool;
  }, [ids, settled, matches.value, matches.fresh, only, firing]);
  return (
    <section class="list" aria-label="Images">
      <div class="list-head">
        <input
          type="search"
          id="filter"
          placeholder="Filter: caption, class, id"
          aria-label="Filter images by caption, class or id"
          value={query}
          onInput={(event) => setQuery(event.currentTarget.value)}
        />
        <span class="muted" role="status">
          {shown.length === ids.length
            ? count(ids.length, "image")
            : `${shown.length.toLocaleString("en")} of ${count(ids.length, "image")}`}
        </span>
        {firing && (
          <label class="check">
            <input type="checkbox" checked={only} onChange={() => setOnly(!only)} />
            only where {firing.name} fires
          </label>
        )}
        {matches.error && <Notice error={matches.error} />}
      </div>
      <Rows
        name="Images"
        item="image"
        height={HEIGHT}
        length={shown.length}
        place={chosen === undefined ? -1 : shown.indexOf(chosen)}
        onPlace={(place) => onChoose(shown[place]!)}
      >
        {(place) => <Item key={shown[place]} id={shown[place]!} records={records} />}
      </Rows>
    </section>
  );
}

function Item({ id, records }: { id: string; records: Records | undefined }) {
  const row = records?.row(id);
  const record = useLoaded(row === undefined ? undefined : `${records!.folder} ${row}`, () =>
    records!.record(row!),
  );
  const shown = record.fresh && record.value ? record.value : undefined;
  return (
    <>
      {row === undefined ? <span class="thumb" /> : <Thumbnail source={records!.image(row, "thumbs")} />}
      <span class="item-text">
        <span class="item-id">{id}</span>
        <span class="muted">{shown ? describe(shown) : ""}</span>
      </span>
    </>
  );
}

export function Thumbnail({ source }: { source: string }) {
  const image = useRef<HTMLImageElement>(null);
  return (
    <span class="thumb">
      <img
        ref={image}
        src={source}
        alt=""
        loading="lazy"
        decoding="async"
        onError={() => image.current?.classList.add("broken")}
      />
    </span>
  );
}

function describe(record: ImageRecord): string {
  return record.captions[0] ?? classes(record).join(", ");
}

/** Return the images whose id, captions or classes hold all words. */
async function match(ids: string[], records: Records, query: string): Promise<string[]> {
  const words = query.split(/\s+/);
  const rows = ids.map((id) => records.row(id));
  const found = await Promise.all(rows.map((row) => (row === undefined ? undefined : records.record(row))));
  return ids.filter((id, n) => {
    const record = found[n];
    const text = [id, ...(record?.captions ?? []), ...(record ? classes(record) : [])].join(" ").toLowerCase();
    return words.every((word) => text.includes(word));
  });
}
