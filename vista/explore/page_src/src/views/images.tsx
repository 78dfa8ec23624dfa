/** Images: a list, one of them large, and what its patches are to two points of the sweep. */

import { useEffect, useMemo, useState } from "preact/hooks";
import type { Parts } from "../address";
import { hashOf, set, whole } from "../address";
import { GRADIENT } from "../colour";
import type { Point } from "../data/catalogue";
import { Geometry, isSingle } from "../data/geometry";
import type { Placing } from "../data/geometry";
import type { ImageRecord } from "../data/records";
import type { Session } from "../data/session";
import { useLoaded, useSettled } from "../hooks";
import { number } from "../text";
import { About } from "./about";
import { BareImages } from "./bare";
import { layerKey, Layers, loadLayer } from "./layers";
import type { Chosen, Side } from "./layers";
import { ImageList } from "./list";
import { hasMasks } from "./masks";
import { Empty, Notice, Waiting } from "./notice";
import { patchName, Stage } from "./stage";

interface Props {
  session: Session;
  parts: Parts;
  points: [Point | undefined, Point | undefined];
}

export function Images({ session, parts, points: [a, b] }: Props) {
  const ids = useLoaded(a && `ids ${a.entry.folder}`, async () => (await session.latents(a!.entry)).ids());
  const records = useLoaded(a && `records ${a.entry.folder}`, () => session.records(a!.entry));
  const chosen = chosenLatent(parts);
  const owner = chosen && (chosen.side === "b" ? b : a);
  const firing = useLoaded(
    chosen && owner && `firing ${owner.entry.folder} ${chosen.layer} ${chosen.latent}`,
    () => firingIds(session, owner!, chosen!),
  );
  if (!a) return <BareImages session={session} parts={parts} />;
  if (ids.error) return <Notice error={ids.error} />;
  if (!ids.value || !ids.fresh) return <Waiting what="the images" />;
  const id = parts["image"] ?? ids.value[0];
  return (
    <div class="images">
      <ImageList
        ids={ids.value}
        records={records.value}
        chosen={id}
        onChoose={(image) => set({ image })}
        firing={chosen && firing.value && { name: `latent ${chosen.latent}`, ids: firing.value }}
      />
      {records.error && <Notice error={records.error} />}
      {id !== undefined && (ids.value.includes(id) || records.value?.row(id) !== undefined) ? (
        <Image session={session} parts={parts} a={a} b={b} id={id} chosen={chosen} />
      ) : records.value || records.error ? (
        <Empty>This point has no image {id}. Choose one of the list.</Empty>
      ) : (
        <Waiting what="the image" />
      )}
    </div>
  );
}

function chosenLatent(parts: Parts): Chosen | undefined {
  const [layer, latent] = [whole(parts["layer"]), whole(parts["latent"])];
  if (layer === undefined || latent === undefined) return undefined;
  return { side: parts["of"] === "b" ? "b" : "a", layer, latent };
}

async function firingIds(session: Session, point: Point, { layer, latent }: Chosen): Promise<Set<string>> {
  const store = await session.latents(point.entry);
  const [places, ids] = await Promise.all([store.firingImages(layer, latent), store.ids()]);
  return new Set(Array.from(places, (place) => ids[place]!));
}

interface Frame {
  id: string;
  record: ImageRecord;
  image: string;
  geometry: Geometry;
  sides: Omit<Side, "token" | "outside">[];
  geometries: Geometry[];
}

/** Everything of an image but its latents, so that it is shown at once. */
async function loadFrame(session: Session, a: Point, b: Point | undefined, id: string): Promise<Frame> {
  // The points are opened together with the records: none of them waits for another.
  const [{ record, image }, loaded] = await Promise.all([
    loadRecord(session, a, id),
    Promise.all([a, ...(b ? [b] : [])].map((point, n) => loadSide(session, point, n === 0 ? "a" : "b", id))),
  ]);
  const geometries = loaded.map(({ placing }) => new Geometry(record.width, record.height, placing));
  return { id, record, image, geometry: geometries[0]!, sides: loaded.map(({ side }) => side), geometries };
}

async function loadRecord(session: Session, point: Point, id: string): Promise<{ record: ImageRecord; image: string }> {
  const records = await session.records(point.entry);
  const row = records.row(id);
  const record = row === undefined ? undefined : await records.record(row);
  if (row === undefined || !record) throw new Error(`The records have no image ${id}.`);
  return { record, image: records.image(row, "images") };
}

async function loadSide(
  session: Session,
  point: Point,
  name: "a" | "b",
  id: string,
): Promise<{ side: Frame["sides"][number]; placing: Placing }> {
  const [store, places, placing] = await Promise.all([
    session.latents(point.entry),
    session.places(point.entry),
    session.placing(point.entry),
  ]);
  const side = { name, point, place: places.get(id), images: places.size, layers: store.layers };
  return { side, placing };
}

interface ImageProps {
  session: Session;
  parts: Parts;
  a: Point;
  b: Point | undefined;
  id: string;
  chosen: Chosen | undefined;
}

function Image({ session, parts, a, b, id, chosen }: ImageProps) {
  const settled = useSettled(id, 40);
  const key = `${a.entry.folder} ${b?.entry.folder ?? ""} ${settled}`;
  const frame = useLoaded(key, () => loadFrame(session, a, b, settled));
  const [hovered, setHovered] = useState<number>();
  const [peeked, setPeeked] = useState<Chosen>();
  const [grid, setGrid] = useState(true);
  const [boxes, setBoxes] = useState(false);
  const [masks, setMasks] = useState(false);
  const [top, setTop] = useState(8);
  useEffect(() => setHovered(undefined), [frame.value?.id]);
  const geometry = frame.value?.geometry;
  // The only token of an image is the whole image.
  const single = geometry !== undefined && isSingle(geometry);
  const pinned = geometry && !single ? parsePatch(parts["patch"], geometry) : undefined;
  const token = single ? undefined : (hovered ?? pinned);
  const sides = useMemo(
    () => (frame.value ? frame.value.sides.map((side, n) => placed(side, frame.value!, n, token)) : []),
    [frame.value, token],
  );
  const mapped = peeked ?? chosen;
  const owner = sides.find((side) => side.name === mapped?.side);
  const layer = useLoaded(layerKey(owner, mapped?.layer), () => loadLayer(session, owner!, mapped!.layer), session.catalogue.labelsKey(owner?.point.entry));
  if (frame.error) return <Notice error={frame.error} />;
  if (!frame.value || !geometry) return <Waiting what="the image" />;
  const { record, image, geometries } = frame.value;
  const map = mapped && layer.value ? mapOn(layer.value.latents.map(mapped.latent), geometry, geometries[owner?.name === "b" ? 1 : 0]!) : undefined;
  const most = map ? Math.max(...map, 0) : 0;
  const label = mapped && layer.value?.labels?.list[mapped.latent]?.text;
  return (
    <>
      <section class="middle" aria-label={`Image ${record.id}`}>
        <Stage
          record={record}
          image={image}
          geometry={geometry}
          hovered={single ? undefined : hovered}
          chosen={pinned}
          map={map}
          most={most}
          grid={grid && !single}
          boxes={boxes}
          masks={masks}
          onHover={setHovered}
          onChoose={(chosen) => set({ patch: chosen === undefined ? undefined : patchName(geometry, chosen) })}
        />
        <div class="under">
          <Legend mapped={mapped} label={label ?? null} most={most} point={owner?.point} kept={mapped === chosen} />
          <div class="switches">
            {!single && (
              <label class="check">
                <input type="checkbox" checked={grid} onChange={() => setGrid(!grid)} /> grid
              </label>
            )}
            {record.objects.length > 0 && (
              <label class="check">
                <input type="checkbox" checked={boxes} onChange={() => setBoxes(!boxes)} /> boxes
              </label>
            )}
            {hasMasks(record) && (
              <label class="check">
                <input type="checkbox" checked={masks} onChange={() => setMasks(!masks)} /> masks
              </label>
            )}
          </div>
        </div>
        <About record={record} geometry={geometry} />
      </section>
      <section class="panel" aria-label="Latents">
        <PanelHead sides={sides} geometry={geometry} token={token} hovering={token !== undefined && hovered !== undefined} layer={whole(parts["layer"])} top={top} onTop={setTop} />
        {sides.every(({ place }) => place === undefined) ? (
          <Empty>No latents of this image are stored: it is of the split {record.split}, and latents are of other images.</Empty>
        ) : (
          <Layers
            session={session}
            sides={sides}
            layer={whole(parts["layer"])}
            chosen={chosen}
            top={top}
            onChoose={choose}
            onPeek={setPeeked}
          />
        )}
      </section>
    </>
  );
}

function choose(chosen: Chosen | undefined): void {
  set(
    chosen
      ? { layer: chosen.layer, latent: chosen.latent, of: chosen.side === "b" ? "b" : undefined }
      : { latent: undefined, of: undefined },
  );
}

function parsePatch(text: string | undefined, geometry: Geometry): number | undefined {
  const [row, column] = (text ?? "").split(",").map((part) => whole(part));
  if (row === undefined || column === undefined) return undefined;
  if (row >= geometry.rows || column >= geometry.columns) return undefined;
  return row * geometry.columns + column;
}

/** Put a token of the first grid into a side's own. */
function placed(side: Omit<Side, "token" | "outside">, frame: Frame, n: number, token: number | undefined): Side {
  if (token === undefined) return { ...side, token: undefined, outside: false };
  const same = n === 0 ? token : frame.geometry.same(token, frame.geometries[n]!);
  return { ...side, token: same, outside: same === undefined };
}

/** Draw activations of a grid on the tokens of another one. */
function mapOn(map: Float32Array, geometry: Geometry, own: Geometry): Float32Array {
  if (own.rows === geometry.rows && own.columns === geometry.columns && own.image.x === geometry.image.x) return map;
  return Float32Array.from({ length: geometry.rows * geometry.columns }, (_, token) => {
    const same = geometry.same(token, own);
    return same === undefined ? 0 : map[same]!;
  });
}

interface LegendProps {
  mapped: Chosen | undefined;
  label: string | null;
  most: number;
  point: Point | undefined;
  kept: boolean;
}

function Legend({ mapped, label, most, point, kept }: LegendProps) {
  if (!mapped || !point) {
    return <p class="legend quiet">Choose a latent to see where it fires.</p>;
  }
  const open = hashOf({
    view: "latent",
    parts: { a: point.key, layer: String(mapped.layer), latent: String(mapped.latent) },
  });
  return (
    <div class="legend">
      <p class="legend-name">
        <a href={open}>
          {label ?? "unlabelled"} <span class="muted">latent {mapped.latent}, layer {mapped.layer}</span>
        </a>
        {kept && (
          <button type="button" class="link" onClick={() => choose(undefined)}>
            clear
          </button>
        )}
      </p>
      <div class="scale" role="img" aria-label={`Colour scale of activation from 0 to ${number(most)}`}>
        <span>0</span>
        <span class="gradient" style={{ background: GRADIENT }} />
        <span>{most > 0 ? number(most) : "silent in this image"}</span>
      </div>
    </div>
  );
}

interface HeadProps {
  sides: Side[];
  geometry: Geometry;
  token: number | undefined;
  hovering: boolean;
  layer: number | undefined;
  top: number;
  onTop: (top: number) => void;
}

function PanelHead({ sides, geometry, token, hovering, layer, top, onTop }: HeadProps) {
  const layers = [...new Set(sides.flatMap((side) => side.layers))].sort((x, y) => x - y);
  const where = token === undefined ? "Whole image" : `Patch ${patchName(geometry, token)}`;
  const jump = (next: number) => {
    set({ layer: next, latent: undefined, of: undefined });
    document.getElementById(`layer-${next}`)?.scrollIntoView({ block: "start" });
  };
  const step = (event: KeyboardEvent) => {
    const by = event.key === "ArrowRight" ? 1 : event.key === "ArrowLeft" ? -1 : 0;
    if (!by) return;
    event.preventDefault();
    const now = layers.indexOf(layer ?? layers[0]!);
    const next = layers[Math.min(Math.max(now + by, 0), layers.length - 1)]!;
    jump(next);
    document.getElementById(`go-${next}`)?.focus();
  };
  return (
    <header class="panel-head">
      <div class="panel-line">
        <h2 aria-live={hovering ? "off" : "polite"}>{where}</h2>
        <span class="muted">{isSingle(geometry) ? "one token stands for it" : token === undefined ? "each latent at its strongest patch" : hovering ? "click to keep" : "kept; Escape lets go"}</span>
        <label class="top">
          <span class="muted">a layer</span>
          <select value={top} aria-label="Latents shown of a layer" onChange={(event) => onTop(Number(event.currentTarget.value))}>
            {[4, 8, 16, 32, 128].map((n) => (
              <option key={n} value={n}>{n}</option>
            ))}
          </select>
        </label>
      </div>
      <nav class="jump" aria-label="Layers" onKeyDown={step}>
        <span class="muted">layer</span>
        {layers.map((n) => (
          <button type="button" id={`go-${n}`} key={n} class={n === layer ? "on" : ""} aria-pressed={n === layer} onClick={() => jump(n)}>
            {n}
          </button>
        ))}
      </nav>
      <div class="sides names">
        {sides.map((side) => (
          <p key={side.name} class={`side-name ${side.name}`}>{side.point.title}</p>
        ))}
      </div>
    </header>
  );
}
