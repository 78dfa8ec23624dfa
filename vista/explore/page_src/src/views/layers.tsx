/** Labelled latents of a patch, or of the whole image: layer by layer, two points side by side. */

import type { Session } from "../data/session";
import type { Point } from "../data/catalogue";
import type { Active, ImageLayer } from "../data/latents";
import type { Label, Labels } from "../data/labels";
import { hashOf } from "../address";
import { useLoaded, useSeen } from "../hooks";
import type { Loaded } from "../hooks";
import { number, percent } from "../text";
import { Notice } from "./notice";

/** A point that is compared, with the place of the image in its store. */
export interface Side {
  name: "a" | "b";
  point: Point;
  place: number | undefined;
  images: number;
  layers: number[];
  /** The token, in this point's grid; undefined: the whole image. */
  token: number | undefined;
  outside: boolean;
}

/** The latent whose heat map is shown. */
export interface Chosen {
  side: "a" | "b";
  layer: number;
  latent: number;
}

interface Props {
  session: Session;
  sides: Side[];
  layer: number | undefined;
  chosen: Chosen | undefined;
  top: number;
  onChoose: (chosen: Chosen | undefined) => void;
  onPeek: (chosen: Chosen | undefined) => void;
}

export function Layers({ session, sides, ...props }: Props) {
  const layers = [...new Set(sides.flatMap((side) => side.layers))].sort((a, b) => a - b);
  return (
    <div class="layers">
      {layers.map((layer) => (
        <Layer key={layer} number={layer} session={session} sides={sides} props={props} />
      ))}
    </div>
  );
}

/** Everything of one layer of one side, or undefined while it is not there. */
export interface LayerData {
  latents: ImageLayer;
  labels: Labels | undefined;
  counts: ArrayLike<number>;
}

export async function loadLayer(session: Session, side: Side, layer: number): Promise<LayerData> {
  const store = await session.latents(side.point.entry);
  const [latents, labels, counts] = await Promise.all([
    store.image(layer, side.place!),
    session.labels(side.point.entry, layer),
    store.imageCounts(layer),
  ]);
  return { latents, labels, counts };
}

export function layerKey(side: Side | undefined, layer: number | undefined): string | undefined {
  if (side?.place === undefined || layer === undefined || !side.layers.includes(layer)) return undefined;
  return `${side.point.entry.folder} ${side.place} ${layer}`;
}

interface LayerProps {
  number: number;
  session: Session;
  sides: Side[];
  props: Omit<Props, "session" | "sides">;
}

function Layer({ number: layer, session, sides, props }: LayerProps) {
  const [element, seen] = useSeen<HTMLElement>();
  const wanted = seen || props.layer === layer || props.chosen?.layer === layer;
  const [a, b] = [sides[0], sides[1]];
  const labelsOf = (side: Side | undefined) => session.catalogue.labelsKey(side?.point.entry);
  const first = useLoaded(wanted ? layerKey(a, layer) : undefined, () => loadLayer(session, a!, layer), labelsOf(a));
  const second = useLoaded(wanted ? layerKey(b, layer) : undefined, () => loadLayer(session, b!, layer), labelsOf(b));
  const loaded = [first, second].slice(0, sides.length);
  const lists = loaded.map(({ value }, n) => (value ? active(value, sides[n]!) : []));
  // One scale for both, so that bars compare.
  const most = Math.max(...lists.map((list) => list[0]?.value ?? 0), 1e-9);
  return (
    <section
      class={`layer ${props.layer === layer ? "on" : ""}`}
      id={`layer-${layer}`}
      ref={element}
      aria-label={`Layer ${layer}`}
    >
      <h3>Layer {layer}</h3>
      <div class="sides">
        {sides.map((side, n) => (
          <Column
            key={side.name}
            side={side}
            layer={layer}
            loaded={loaded[n]!}
            list={lists[n]!}
            most={most}
            props={props}
          />
        ))}
      </div>
    </section>
  );
}

/** Return what fires at a side's token, or in its whole image. */
function active({ latents }: LayerData, side: Side): Active[] {
  if (side.outside) return [];
  return side.token === undefined ? latents.strongest() : latents.active(side.token);
}

interface ColumnProps {
  side: Side;
  layer: number;
  loaded: Loaded<LayerData>;
  list: Active[];
  most: number;
  props: Omit<Props, "session" | "sides">;
}

function Column({ side, layer, loaded, list, most, props }: ColumnProps) {
  const { value, error } = loaded;
  if (error) return <div class="side"><Notice error={error} /></div>;
  if (!side.layers.includes(layer)) return <div class="side"><p class="quiet">no latents of this layer</p></div>;
  if (side.place === undefined) return <div class="side"><p class="quiet">no latents of this image</p></div>;
  if (!value) return <div class="side"><p class="quiet">loading …</p></div>;
  if (side.outside) return <div class="side"><p class="quiet">this patch lies outside of its grid</p></div>;
  return (
    <div class={`side ${loaded.fresh ? "" : "stale"}`}>
      <p class="facts">{facts(value, side, list.length)}</p>
      {value.labels === undefined && <p class="quiet">this SAE is not labelled</p>}
      <ul class="latents">
        {list.slice(0, props.top).map((item) => (
          <Row
            key={item.latent}
            item={item}
            label={value.labels?.list[item.latent]}
            share={value.counts[item.latent]! / side.images}
            most={most}
            at={{ side: side.name, layer, latent: item.latent }}
            point={side.point}
            {...props}
          />
        ))}
      </ul>
      {list.length === 0 && <p class="quiet">no latent fires</p>}
      {list.length > props.top && <p class="quiet">and {list.length - props.top} more</p>}
    </div>
  );
}

function facts({ latents }: LayerData, side: Side, found: number) {
  if (side.token !== undefined) {
    if (!latents.isValid(side.token)) return "this token is not there";
    return (
      <>
        <abbr title="latents that fire at this token">L0</abbr> {latents.l0(side.token)} ·{" "}
        <abbr title="squared error of the SAE over the squared norm of the stream, at this token">error</abbr>{" "}
        {number(latents.error(side.token))}
      </>
    );
  }
  let [l0, valid, error] = [0, 0, 0];
  for (let token = 0; token < latents.tokens; token++) {
    if (!latents.isValid(token)) continue;
    valid += 1;
    l0 += latents.l0(token);
    error += latents.error(token);
  }
  return (
    <>
      <abbr title="mean number of latents that fire at a token of this image">L0</abbr> {number(l0 / valid)} ·{" "}
      <abbr title="squared error of the SAE over the squared norm, mean over the tokens">error</abbr>{" "}
      {number(error / valid)}
      <span class="fires"> · {found} fire</span>
    </>
  );
}

interface RowProps extends Omit<Props, "session" | "sides"> {
  item: Active;
  label: Label | undefined;
  share: number;
  most: number;
  at: Chosen;
  point: Point;
}

function Row({ item, label, share, most, at, point, chosen, onChoose, onPeek }: RowProps) {
  const on = chosen?.layer === at.layer && chosen.latent === at.latent;
  const here = on && chosen.side === at.side;
  const name = label?.text ?? null;
  const open = hashOf({
    view: "latent",
    parts: { a: point.key, layer: String(at.layer), latent: String(at.latent) },
  });
  return (
    <li class={`latent ${on ? "on" : ""} ${here ? "here" : ""}`}>
      <button
        type="button"
        aria-pressed={here}
        title={name ?? `latent ${item.latent}, unlabelled`}
        aria-label={`${name ?? "unlabelled"}, latent ${item.latent}, activation ${number(item.value)}, fires in ${percent(share)} of images`}
        onClick={() => onChoose(here ? undefined : at)}
        onMouseEnter={() => onPeek(at)}
        onMouseLeave={() => onPeek(undefined)}
        onKeyDown={moveFocus}
      >
        <span class="bar" style={{ width: `${(100 * item.value) / most}%` }} />
        <span class={`name ${name === null ? "unlabelled" : ""}`}>{name ?? "unlabelled"}</span>
        <span class="id">{item.latent}</span>
        <span class="value">{number(item.value)}</span>
        <span class="share" title="share of images in which it fires">{percent(share)}</span>
      </button>
      <a href={open} title="texts and images of this latent" aria-label={`Open latent ${item.latent} of layer ${at.layer}`}>
        ›
      </a>
    </li>
  );
}

/** Up and down walk through the latents of a column. */
function moveFocus(event: KeyboardEvent & { currentTarget: HTMLButtonElement }): void {
  const step = event.key === "ArrowDown" ? "nextElementSibling" : event.key === "ArrowUp" ? "previousElementSibling" : undefined;
  if (!step) return;
  const next = event.currentTarget.parentElement?.[step]?.querySelector("button");
  event.preventDefault();
  event.stopPropagation();
  next?.focus();
}
