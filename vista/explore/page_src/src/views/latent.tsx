/** One latent: what it is called, where it fires in text and in images; and the search for one. */

import { useEffect, useMemo, useState } from "preact/hooks";
import { hashOf, set, whole } from "../address";
import type { Parts } from "../address";
import { GRADIENT } from "../colour";
import type { Point } from "../data/catalogue";
import type { Placing } from "../data/geometry";
import { search } from "../data/labels";
import type { Label, Labels } from "../data/labels";
import type { LatentStore, TopImage } from "../data/latents";
import type { Records } from "../data/records";
import type { Session } from "../data/session";
import { useLoaded, useSettled } from "../hooks";
import type { Loaded } from "../hooks";
import { count, marked, number, percent } from "../text";
import { Histogram } from "./histogram";
import { Neighbours, PublishedLink } from "./neighbours";
import { Empty, Notice, Waiting } from "./notice";
import { Tile } from "./tile";

const FOUND = 200;

interface Props {
  session: Session;
  parts: Parts;
  point: Point | undefined;
}

export function Latents({ session, parts, point }: Props) {
  const store = useLoaded(point && `store ${point.entry.folder}`, () => session.latents(point!.entry));
  if (!point) return <Empty>This run has no latents yet.</Empty>;
  if (store.error) return <Notice error={store.error} />;
  if (!store.value || !store.fresh) return <Waiting what="the latents" />;
  const layer = whole(parts["layer"]);
  const latent = whole(parts["latent"]);
  const size = layer === undefined ? undefined : store.value.sizes.get(layer);
  return (
    <div class="latent-view">
      <Search session={session} point={point} store={store.value} layer={layer} latent={latent} query={parts["q"] ?? ""} />
      {layer === undefined || latent === undefined ? (
        <Empty>Search for a label, or give a layer and a number.</Empty>
      ) : size === undefined ? (
        <Empty>This point has no layer {layer}; it has {store.value.layers.join(", ")}.</Empty>
      ) : latent >= size ? (
        <Empty>Layer {layer} has no latent {latent}: it has 0 to {size - 1}.</Empty>
      ) : (
        <One session={session} point={point} store={store.value} layer={layer} latent={latent} />
      )}
    </div>
  );
}

interface SearchProps {
  session: Session;
  point: Point;
  store: LatentStore;
  layer: number | undefined;
  latent: number | undefined;
  query: string;
}

function Search({ session, point, store, layer, latent, query }: SearchProps) {
  const settled = useSettled(query, 150);
  const labels = useLoaded(`labels ${point.entry.folder}`, () => session.allLabels(point.entry), session.catalogue.labelsKey(point.entry));
  const found = labels.value ? search(labels.value, settled, FOUND) : [];
  return (
    <section class="search" aria-label="Search for a latent">
      <div class="search-head">
        <input
          type="search"
          id="filter"
          placeholder="Search labels"
          aria-label="Search labels"
          value={query}
          onInput={(event) => set({ q: event.currentTarget.value || undefined })}
        />
        <span class="by-number">
          <label>
            layer{" "}
            <select value={layer ?? store.layers[0]} onChange={(event) => set({ layer: event.currentTarget.value, latent: latent ?? 0 })}>
              {store.layers.map((n) => (
                <option key={n} value={n}>{n}</option>
              ))}
            </select>
          </label>
          <label>
            latent{" "}
            <input
              type="number"
              min={0}
              max={(store.sizes.get(layer ?? store.layers[0]!) ?? 1) - 1}
              value={latent ?? ""}
              onChange={(event) => set({ layer: layer ?? store.layers[0], latent: whole(event.currentTarget.value) })}
            />
          </label>
        </span>
        <span class="muted" role="status">{said(labels.value, settled, found.length)}</span>
        {labels.error && <Notice error={labels.error} />}
      </div>
      <ul class="found" onKeyDown={walk}>
        {found.map(({ layer: of, label }) => (
          <li key={`${of} ${label.latent}`}>
            <a
              class={of === layer && label.latent === latent ? "on" : ""}
              href={hashOf({ view: "latent", parts: { a: point.key, layer: String(of), latent: String(label.latent), q: query } })}
              onClick={(event) => {
                event.preventDefault();
                set({ layer: of, latent: label.latent }, true);
              }}
            >
              <span class="name">{label.text}</span>
              <span class="muted">layer {of} · {label.latent}</span>
            </a>
          </li>
        ))}
      </ul>
    </section>
  );
}

function said(labels: Labels[] | undefined, query: string, found: number): string {
  if (!labels) return "loading labels …";
  if (!labels.length) return "No SAE of this point is labelled.";
  if (query.trim()) return found === FOUND ? `the first ${FOUND}` : count(found, "latent");
  const labelled = labels.reduce((sum, { list }) => sum + list.filter(({ text }) => text !== null).length, 0);
  return `${count(labelled, "labelled latent")} in ${count(labels.length, "layer")}`;
}

function walk(event: KeyboardEvent): void {
  const step = event.key === "ArrowDown" ? "nextElementSibling" : event.key === "ArrowUp" ? "previousElementSibling" : undefined;
  const item = document.activeElement?.closest("li");
  if (!step || !item) return;
  event.preventDefault();
  item[step]?.querySelector("a")?.focus();
}

interface OneProps {
  session: Session;
  point: Point;
  store: LatentStore;
  layer: number;
  latent: number;
}

interface Facts {
  label: Label | undefined;
  source: string | undefined;
  /** "MODEL/SOURCE" at Neuronpedia. */
  published: string | undefined;
  sae: string | undefined;
  words: Labels | undefined;
  images: number;
  ids: string[];
  fires: number;
  share: number;
}

async function loadFacts({ session, point, store, layer, latent }: OneProps): Promise<Facts> {
  const [words, source, fires, ids, share] = await Promise.all([
    session.labels(point.entry, layer),
    session.labelSource(point.entry, layer),
    store.imageCount(layer, latent),
    store.ids(),
    store.tokenShare(layer, latent),
  ]);
  return {
    label: words?.list[latent],
    source: source?.folder,
    published: source?.neuronpedia ?? session.catalogue.sae(point.entry, layer)?.neuronpedia,
    sae: words?.sae,
    words,
    images: ids.length,
    ids,
    fires,
    share,
  };
}

function One(props: OneProps) {
  const { session, point, store, layer, latent } = props;
  const key = `${point.entry.folder} ${layer} ${latent}`;
  const known = session.catalogue.labelsKey(point.entry);
  const facts = useLoaded(`facts ${key}`, () => loadFacts(props), known);
  const contexts = useLoaded(`contexts ${key}`, async () => (await session.labels(point.entry, layer))?.contexts(latent), known);
  // Read once for all that need it, which do not wait for each other.
  const list = useMemo(() => {
    const read = store.top(layer, latent);
    read.catch(() => undefined);
    return read;
  }, [store, layer, latent]);
  const top = useLoaded(`top ${key}`, () => loadTop(props, key, list));
  const maps = useLoaded(`maps ${key}`, async () => ({ of: key, maps: await store.topMaps(layer, latent, list) }));
  const bins = useLoaded(`histogram ${key}`, () => store.histogram(layer, latent, list));
  if (facts.error) return <section class="one"><Notice error={facts.error} /></section>;
  if (!facts.value) return <section class="one"><Waiting what="the latent" /></section>;
  const tokens = store.grid[0] * store.grid[1] === 1 ? "tokens, one an image" : "patches";
  const { label, source, published, words, sae, fires, images, share, ids } = facts.value;
  return (
    <section class={`one ${facts.fresh ? "" : "stale"}`} aria-label={`Latent ${latent} of layer ${layer}`}>
      <h2 class={label?.text == null ? "unlabelled" : ""}>{label?.text ?? "unlabelled"}</h2>
      <p class="muted">latent {latent} of layer {layer}{sae ? ` · SAE ${sae}` : ""}<PublishedLink published={published} latent={latent} /></p>
      <dl class="numbers">
        <dt>label from</dt>
        <dd>{source ?? "this SAE is not labelled"}</dd>
        {label && words && words.tokens > 0 && (
          <>
            <dt>its share of the strong activation</dt>
            <dd>{percent(label.share)}</dd>
          </>
        )}
        {label && label.auroc !== null && (
          <>
            <dt>AUROC for its word in held-out text</dt>
            <dd>{number(label.auroc)} <span class="muted">chance 0.5</span></dd>
          </>
        )}
        {label && (
          <>
            <dt>fires in text</dt>
            <dd>{percent(label.density)} <span class="muted">of tokens</span></dd>
          </>
        )}
        <dt>fires in images</dt>
        <dd>
          {percent(fires / images)} <span class="muted">of {count(images, "image")}</span> · {percent(share)}{" "}
          <span class="muted">of {tokens}</span>
        </dd>
      </dl>
      <div class="columns">
        <div>
          <h3>In text</h3>
          {contexts.error ? <Notice error={contexts.error} /> : <Contexts list={contexts.value} loading={!contexts.fresh} />}
        </div>
        <div>
          <h3>Activation on {tokens}</h3>
          {bins.error ? <Notice error={bins.error} /> : <Histogram bins={bins.value} />}
        </div>
      </div>
      <Neighbours
        session={session}
        sae={session.catalogue.sae(point.entry, layer)}
        latent={latent}
        words={words}
        link={(n) => hashOf({ view: "latent", parts: { a: point.key, layer: String(layer), latent: String(n) } })}
      />
      <h3>Top images</h3>
      {fires === 0 ? (
        <p class="quiet">It fires at no image.</p>
      ) : (
        <Top point={point} ids={ids} top={top} maps={maps} />
      )}
    </section>
  );
}

function Contexts({ list, loading }: { list: string[] | undefined; loading: boolean }) {
  if (!list?.length) return <p class="quiet">{loading ? "loading …" : "no texts"}</p>;
  return (
    <ol class="contexts">
      {list.map((context, n) => {
        const scored = /^([\d.eE+-]+): (.*)$/s.exec(context);
        const [before, token, after] = marked(scored ? scored[2]! : context);
        return (
          <li key={n}>
            {scored && <span class="muted">{number(Number(scored[1]))}</span>}
            <span>
              {before}
              {token && <mark>{token}</mark>}
              {after}
            </span>
          </li>
        );
      })}
    </ol>
  );
}

/** Maps of the top images of a latent. */
interface TopMaps {
  of: string;
  maps: Float32Array[];
}

interface TopProps {
  point: Point;
  ids: string[];
  top: Loaded<TopData>;
  maps: Loaded<TopMaps>;
}

interface TopData {
  of: string;
  layer: number;
  latent: number;
  list: TopImage[];
  records: Records;
  placing: Placing;
}

async function loadTop({ session, point, layer, latent }: OneProps, of: string, read: Promise<TopImage[]>): Promise<TopData> {
  const [list, records, placing] = await Promise.all([
    read,
    session.records(point.entry),
    session.placing(point.entry),
  ]);
  return { of, layer, latent, list, records, placing };
}

function Top({ point, ids, top, maps }: TopProps) {
  const [shown, setShown] = useState(16);
  const data = top.value;
  useEffect(() => setShown(16), [data?.of]);
  if (top.error) return <Notice error={top.error} />;
  if (!data) return <Waiting what="its images" />;
  const { of, layer, latent, list, records, placing } = data;
  // While the next latent loads, maps and images may be of different ones.
  const drawn = maps.value?.of === of ? maps.value.maps : undefined;
  const most = list[0]?.value ?? 1;
  return (
    <>
      <div class="scale" role="img" aria-label={`Colour scale of activation from 0 to ${number(most)}`}>
        <span>0</span>
        <span class="gradient" style={{ background: GRADIENT }} />
        <span>{number(most)}</span>
      </div>
      {maps.error && <Notice error={maps.error} />}
      <ul class="tiles">
        {list.slice(0, shown).map((item, rank) => (
          <Tile
            key={item.place}
            item={item}
            id={ids[item.place]!}
            records={records}
            placing={placing}
            map={drawn?.[rank]}
            most={most}
            link={{ a: point.key, layer: String(layer), latent: String(latent) }}
          />
        ))}
      </ul>
      {list.length > shown && (
        <button type="button" class="link" onClick={() => setShown(64)}>
          show {list.length} images
        </button>
      )}
    </>
  );
}
