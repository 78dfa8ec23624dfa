/** The images of a point: a list of any length with thumbnails, of which what is seen is drawn. */

import { useEffect, useMemo, useRef, useState } from "preact/hooks";
import { useLoaded, useSettled, useSize } from "../hooks";
import { classes } from "../data/records";
import type { ImageRecord, Records } from "../data/records";
import { count } from "../text";
import { Notice } from "./notice";

const HEIGHT = 56;
const EXTRA = 6;

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
  const [box, size] = useSize<HTMLDivElement>();
  const [top, setTop] = useState(0);
  const first = Math.max(0, Math.floor(top / HEIGHT) - EXTRA);
  const last = Math.min(shown.length, Math.ceil((top + size.height) / HEIGHT) + EXTRA);
  const place = chosen === undefined ? -1 : shown.indexOf(chosen);

  // The chosen image stays in sight.
  useEffect(() => {
    const element = box.current;
    if (!element || place < 0 || size.height === 0) return;
    const at = place * HEIGHT;
    if (at < element.scrollTop) element.scrollTop = at;
    else if (at + HEIGHT > element.scrollTop + size.height) element.scrollTop = at + HEIGHT - size.height;
  }, [place, size.height > 0, shown.length]);

  const page = Math.max(1, Math.floor(size.height / HEIGHT) - 1);
  const steps: Record<string, number> = {
    ArrowDown: place + 1,
    ArrowUp: place - 1,
    PageDown: place + page,
    PageUp: place - page,
    Home: 0,
    End: shown.length - 1,
  };
  const move = (event: KeyboardEvent) => {
    const next = steps[event.key];
    if (next === undefined || !shown.length) return;
    event.preventDefault();
    onChoose(shown[Math.min(Math.max(next, 0), shown.length - 1)]!);
  };
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
      <div
        class="list-body"
        ref={box}
        tabIndex={0}
        role="listbox"
        aria-label="Images"
        {...(place >= first && place < last ? { "aria-activedescendant": `image-${place}` } : {})}
        onScroll={(event) => setTop(event.currentTarget.scrollTop)}
        onKeyDown={move}
      >
        <div class="list-length" style={{ height: `${shown.length * HEIGHT}px` }}>
          {shown.slice(first, last).map((id, n) => (
            <Item
              key={id}
              id={id}
              place={first + n}
              total={shown.length}
              records={records}
              chosen={id === chosen}
              onChoose={onChoose}
            />
          ))}
        </div>
      </div>
    </section>
  );
}

interface ItemProps {
  id: string;
  place: number;
  total: number;
  records: Records | undefined;
  chosen: boolean;
  onChoose: (id: string) => void;
}

function Item({ id, place, total, records, chosen, onChoose }: ItemProps) {
  const row = records?.row(id);
  const record = useLoaded(row === undefined ? undefined : `${records!.folder} ${row}`, () =>
    records!.record(row!),
  );
  const shown = record.fresh && record.value ? record.value : undefined;
  return (
    <div
      class={`item ${chosen ? "on" : ""}`}
      id={`image-${place}`}
      role="option"
      aria-selected={chosen}
      aria-setsize={total}
      aria-posinset={place + 1}
      style={{ top: `${place * HEIGHT}px` }}
      onClick={() => onChoose(id)}
    >
      {row === undefined ? <span class="thumb" /> : <Thumbnail source={records!.image(row, "thumbs")} />}
      <span class="item-text">
        <span class="item-id">{id}</span>
        <span class="muted">{shown ? describe(shown) : ""}</span>
      </span>
    </div>
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
