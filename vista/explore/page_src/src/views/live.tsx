/** Live: an image that is dropped, or one of the run, its latents, and captions under an edit. */

import { useEffect, useMemo, useRef, useState } from "preact/hooks";
import type { Parts } from "../address";
import type { Point } from "../data/catalogue";
import { Geometry, isSingle } from "../data/geometry";
import type { Active } from "../data/latents";
import { liveCaptions, liveLatents } from "../data/live";
import type { Captions, Edit, LiveLayer, Waiting } from "../data/live";
import type { ImageRecord } from "../data/records";
import type { Session } from "../data/session";
import { useLoaded } from "../hooks";
import { number } from "../text";
import { Empty, Notice } from "./notice";
import { patchName, Stage } from "./stage";

interface Props {
  session: Session;
  parts: Parts;
  point: Point | undefined;
}

/** An image that is looked at, with its latents. */
interface Shown {
  /** Its id in the run, or the file. */
  source: string | Blob;
  address: string;
  record: ImageRecord;
  geometry: Geometry;
  layers: LiveLayer[];
}

export function Live({ session, parts, point }: Props) {
  const [file, setFile] = useState<File>();
  const [before, setBefore] = useState(0);
  const key = point && (file ? `file ${file.name} ${file.size} ${file.lastModified}` : `run ${parts["image"] ?? ""}`);
  const stop = useStop(key);
  const shown = useLoaded(point && `${point.entry.folder} ${key}`, () =>
    file ? fromFile(point!, file, stop.signal, setBefore) : fromRun(session, point!, parts["image"]),
  );
  useEffect(() => () => void (file && shown.value && URL.revokeObjectURL(shown.value.address)), [shown.value]);
  if (!point) return <Empty>This run has no latents yet: there is nothing to read an image with.</Empty>;
  const there = shown.value && shown.fresh;
  return (
    <div class="live">
      <section class="middle" aria-label="Image">
        <Drop file={file} onFile={setFile} />
        {/* Always there, so that screen readers say what it comes to hold. */}
        <p role="status" class={there ? "unseen" : "quiet"}>
          {shown.error ? "" : there ? `The latents of ${shown.value!.record.id} are there.` : `Reading the image; ${file && before ? place(before) : "the first request loads the models"} …`}
        </p>
        {shown.error && <Notice error={shown.error} />}
      </section>
      {shown.value && shown.fresh && <Editor key={key} point={point} shown={shown.value} />}
    </div>
  );
}

/** Return a controller that is aborted when the key changes or the view is left. */
function useStop(key: string | undefined): AbortController {
  const stop = useMemo(() => new AbortController(), [key]);
  useEffect(() => () => stop.abort(), [stop]);
  return stop;
}

/** Return how many requests are answered first. */
function place(before: number): string {
  return `${before} before yours`;
}

function folderName(point: Point): string {
  return point.entry.folder.split("/")[1]!;
}

async function fromFile(point: Point, file: File, signal: AbortSignal, waiting: Waiting): Promise<Shown> {
  const { width, height, placing, layers } = await liveLatents(folderName(point), file, signal, waiting);
  return {
    source: file,
    address: URL.createObjectURL(file),
    record: { row: 0, id: file.name, split: "", width, height, captions: [], objects: [] },
    geometry: new Geometry(width, height, placing),
    layers,
  };
}

async function fromRun(session: Session, point: Point, asked: string | undefined): Promise<Shown> {
  const [store, places, records, placing] = await Promise.all([
    session.latents(point.entry),
    session.places(point.entry),
    session.records(point.entry),
    session.placing(point.entry),
  ]);
  const id = asked !== undefined && places.has(asked) ? asked : (await store.ids())[0]!;
  const row = records.row(id);
  const record = row === undefined ? undefined : await records.record(row);
  if (row === undefined || !record) throw new Error(`The records have no image ${id}.`);
  const layers = await Promise.all(
    store.layers.map(async (layer) => {
      const [latents, labels] = await Promise.all([store.image(layer, places.get(id)!), session.labels(point.entry, layer)]);
      const tokens = Array.from({ length: latents.tokens }, (_, token) => latents.active(token));
      const known = new Map(tokens.flat().map(({ latent }) => [latent, labels?.list[latent]?.text ?? null]));
      return { layer, tokens, l0: tokens.map((_, token) => latents.l0(token)), labels: known };
    }),
  );
  const geometry = new Geometry(record.width, record.height, placing);
  return { source: id, address: records.image(row, "images"), record, geometry, layers };
}

function Drop({ file, onFile }: { file: File | undefined; onFile: (file: File | undefined) => void }) {
  const [over, setOver] = useState(false);
  const input = useRef<HTMLInputElement>(null);
  const take = (files: FileList | null | undefined) => files?.[0] && onFile(files[0]);
  return (
    <div
      class={`drop ${over ? "over" : ""}`}
      onDragOver={(event) => {
        event.preventDefault();
        setOver(true);
      }}
      onDragLeave={() => setOver(false)}
      onDrop={(event) => {
        event.preventDefault();
        setOver(false);
        take(event.dataTransfer?.files);
      }}
    >
      <label class="link">
        Choose an image
        <input ref={input} type="file" accept="image/*" class="hidden" onChange={(event) => take(event.currentTarget.files)} />
      </label>{" "}
      <span class="muted">or drop one here{file ? ` · ${file.name}` : ""}</span>
      {file && (
        <button
          type="button"
          class="link"
          onClick={() => {
            // The button goes, and the focus with it.
            input.current?.focus();
            if (input.current) input.current.value = "";
            onFile(undefined);
          }}
        >
          back to the run's image
        </button>
      )}
    </div>
  );
}

/** The latent that an edit is along. */
interface Along {
  layer: number;
  latent: number;
}

function Editor({ point, shown }: { point: Point; shown: Shown }) {
  const { geometry, record, layers } = shown;
  // The only token of an image is what is edited, and a heat map would cover all of it.
  const single = isSingle(geometry);
  const [hovered, setHovered] = useState<number>();
  const [cursor, setCursor] = useState<number>();
  const [patches, setPatches] = useState<ReadonlySet<number>>(new Set(single ? [0] : []));
  const [along, setAlong] = useState<Along>();
  const token = hovered ?? cursor;
  const tokens = geometry.rows * geometry.columns;
  const map = useMemo(() => (along && !single ? heatOf(layers, along, tokens) : undefined), [along, layers]);
  const toggle = (token: number) => {
    const next = new Set(patches);
    if (!next.delete(token)) next.add(token);
    setPatches(next);
  };
  return (
    <>
      <section class="middle" aria-label={`Image ${record.id}`}>
        <Stage
          record={record}
          image={shown.address}
          geometry={geometry}
          hovered={hovered}
          chosen={cursor}
          map={map}
          most={Math.max(...(map ?? []), 1e-9)}
          grid={!single}
          boxes={false}
          {...(single ? {} : { marked: patches })}
          onMark={toggle}
          onHover={setHovered}
          onChoose={setCursor}
        />
        {single ? (
          <p class="quiet">An edit changes the image's class token.</p>
        ) : (
          <p class="quiet">
            <span role="status">{patches.size ? `${patches.size} of ${tokens} patches are edited` : "Click the patches to edit (arrow keys and Enter, too)"}</span>
            {" · "}
            <button type="button" class="link" aria-label="Edit all patches" onClick={() => setPatches(new Set(Array.from({ length: tokens }, (_, n) => n)))}>
              all
            </button>
            <button type="button" class="link" aria-label="Edit no patch" onClick={() => setPatches(new Set())}>
              none
            </button>
          </p>
        )}
        <Captioning point={point} shown={shown} patches={patches} along={along} />
      </section>
      <section class="panel" aria-label="Latents">
        <h2 aria-live={hovered === undefined ? "polite" : "off"}>{single ? "The image's class token" : token === undefined ? "Whole image" : `Patch ${patchName(geometry, token)}`}</h2>
        {layers.map((layer) => (
          <LayerList key={layer.layer} layer={layer} token={token} along={along} onChoose={setAlong} />
        ))}
      </section>
    </>
  );
}

function heatOf(layers: LiveLayer[], { layer, latent }: Along, tokens: number): Float32Array {
  const found = layers.find((one) => one.layer === layer)?.tokens ?? [];
  return Float32Array.from({ length: tokens }, (_, token) => found[token]?.find((one) => one.latent === latent)?.value ?? 0);
}

const TOP = 8;

interface ListProps {
  layer: LiveLayer;
  token: number | undefined;
  along: Along | undefined;
  onChoose: (along: Along | undefined) => void;
}

function LayerList({ layer, token, along, onChoose }: ListProps) {
  const list = (token === undefined ? strongest(layer) : (layer.tokens[token] ?? [])).slice(0, TOP);
  const most = list[0]?.value ?? 1;
  return (
    <section class="layer" aria-label={`Layer ${layer.layer}`}>
      <h3>Layer {layer.layer}</h3>
      <ul class="latents">
        {list.map(({ latent, value }) => {
          const on = along?.layer === layer.layer && along.latent === latent;
          const name = layer.labels.get(latent) ?? null;
          return (
            <li key={latent} class={`latent ${on ? "on here" : ""}`}>
              <button
                type="button"
                aria-pressed={on}
                title={name ?? `latent ${latent}, unlabelled`}
                aria-label={`${name ?? "unlabelled"}, latent ${latent}, activation ${number(value)}`}
                onClick={() => onChoose(on ? undefined : { layer: layer.layer, latent })}
              >
                <span class="bar" style={{ width: `${(100 * value) / most}%` }} />
                <span class={`name ${name === null ? "unlabelled" : ""}`}>{name ?? "unlabelled"}</span>
                <span class="id">{latent}</span>
                <span class="value">{number(value)}</span>
              </button>
            </li>
          );
        })}
      </ul>
      {list.length === 0 && <p class="quiet">no latent fires</p>}
    </section>
  );
}

function strongest(layer: LiveLayer): Active[] {
  const best = new Map<number, Active>();
  for (const one of layer.tokens.flat()) {
    if (one.value > (best.get(one.latent)?.value ?? 0)) best.set(one.latent, one);
  }
  return [...best.values()].sort((a, b) => b.value - a.value);
}

const CHANGES: Record<Edit["change"], string> = {
  add: "add its direction",
  subtract: "subtract its direction",
  ablate: "ablate: take away what it writes",
  clamp: "clamp: set its activation",
};

interface CaptionProps {
  point: Point;
  shown: Shown;
  patches: ReadonlySet<number>;
  along: Along | undefined;
}

function Captioning({ point, shown, patches, along }: CaptionProps) {
  const [change, setChange] = useState<Edit["change"]>("add");
  const [strength, setStrength] = useState("4");
  const [blocks, setBlocks] = useState("");
  const [question, setQuestion] = useState("");
  const [answer, setAnswer] = useState<Captions>();
  const [error, setError] = useState<Error>();
  const running = useRef<AbortController | undefined>(undefined);
  const [busy, setBusy] = useState(false);
  const [before, setBefore] = useState(0);
  const submit = useRef<HTMLButtonElement>(null);
  useEffect(() => () => running.current?.abort(), []);
  const edits = along && patches.size ? [{ ...along, change, strength: Number(strength), patches: [...patches], blocks: numbers(blocks) }] : [];
  const ask = async (event: Event) => {
    event.preventDefault();
    if (busy) return;
    const stop = new AbortController();
    running.current?.abort();
    running.current = stop;
    setBusy(true);
    setError(undefined);
    try {
      setAnswer(await liveCaptions(folderName(point), shown.source, question, edits, stop.signal, setBefore));
    } catch (problem) {
      if (!stop.signal.aborted) setError(problem as Error);
    } finally {
      if (running.current === stop) setBusy(false);
    }
  };
  return (
    <form class="captioning" onSubmit={ask} aria-label="Caption">
      <p class="quiet">
        {along
          ? `Along latent ${along.latent} of layer ${along.layer}${patches.size ? "" : ": choose patches"}.`
          : "Choose a latent to edit along; without one, the image is only captioned."}
      </p>
      <div class="fields">
        <label>
          <span class="muted">change</span>
          <select value={change} onChange={(event) => setChange(event.currentTarget.value as Edit["change"])}>
            {Object.entries(CHANGES).map(([name, says]) => (
              <option key={name} value={name}>{says}</option>
            ))}
          </select>
        </label>
        <label>
          <span class="muted">strength</span>
          <input type="number" step="any" value={strength} onInput={(event) => setStrength(event.currentTarget.value)} />
        </label>
        <label title="blocks after which the stream is edited; empty: after the latent's own">
          <span class="muted">blocks</span>
          <input type="search" placeholder="0, 1, 2" value={blocks} onInput={(event) => setBlocks(event.currentTarget.value)} />
        </label>
        <label class="wide">
          <span class="muted">question</span>
          <input type="search" placeholder="as in the data" value={question} onInput={(event) => setQuestion(event.currentTarget.value)} />
        </label>
        {/* Not disabled, which would take the focus away. */}
        <button type="submit" ref={submit} aria-disabled={busy}>Caption</button>
        {busy && (
          <button
            type="button"
            class="link"
            aria-label="Cancel the caption"
            onClick={() => {
              submit.current?.focus();
              running.current?.abort();
            }}
          >
            cancel
          </button>
        )}
      </div>
      <div aria-live="polite">
        {busy && <p class="quiet">waiting for the models; {before ? place(before) : "requests are answered in their order"} …</p>}
        {error && <Notice error={error} />}
        {answer && !busy && <Answer answer={answer} />}
      </div>
    </form>
  );
}

function Answer({ answer }: { answer: Captions }) {
  return (
    <dl class="about">
      <dt>before</dt>
      <dd>{answer.unedited}</dd>
      {answer.edited.map((caption, n) => (
        <>
          <dt>edited</dt>
          <dd>{caption}</dd>
          <dt title="each token moved as far, along a random direction">random</dt>
          <dd>{answer.random[n]}</dd>
        </>
      ))}
    </dl>
  );
}

function numbers(text: string): number[] {
  return text.split(/[\s,]+/).filter(Boolean).map(Number).filter(Number.isInteger);
}
