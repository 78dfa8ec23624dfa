/** Vision SAEs: the latents of one, by label, density or score, and the top images of one latent. */

import { useMemo } from "preact/hooks";
import { hashOf, set, whole } from "../address";
import type { Parts } from "../address";
import { Geometry, isSingle } from "../data/geometry";
import type { Placing } from "../data/geometry";
import type { Label, Labels } from "../data/labels";
import type { Records } from "../data/records";
import type { Session } from "../data/session";
import { steeredLabels, topPlaces, unlabelledSaes, visionSaes } from "../data/vision";
import type { Steered, TopPlace, VisionSae } from "../data/vision";
import { useLoaded, useSeen, useSettled } from "../hooks";
import { count, number, percent } from "../text";
import { Neighbours } from "./neighbours";
import { Empty, Notice, Waiting } from "./notice";
import { Rows } from "./rows";
import { patchName } from "./stage";

const HEIGHT = 44;
const ORDERS = { number: "number", density: "density", score: "score of the label" };
type Order = keyof typeof ORDERS;

interface Props {
  session: Session;
  parts: Parts;
}

export function Vision({ session, parts }: Props) {
  const saes = useMemo(() => visionSaes(session.catalogue), [session]);
  if (!saes.length) {
    const names = unlabelledSaes(session.catalogue);
    if (names.length) return <Empty>The latents of this run's vision SAEs are not labelled yet: {names.join(", ")}.</Empty>;
    return <Empty>This run has no vision SAE: its config has no vision_saes that are read, or they are not finished.</Empty>;
  }
  const sae = saes.find(({ key, entry }) => key === parts["sae"] || entry.folder.endsWith(`/${parts["sae"]}`)) ?? saes[0]!;
  return <OneSae key={sae.key} session={session} parts={parts} saes={saes} sae={sae} />;
}

interface Facts {
  labels: Labels;
  /** The labels that are listed and searched, where they are others. */
  listed: Labels;
  records: Records;
  /** undefined: of prompts, which have no grid. */
  placing: Placing | undefined;
}

async function loadFacts(session: Session, { entry }: VisionSae, from: string | undefined): Promise<Facts> {
  const [features] = entry.parents["features"] ?? [];
  const [labels, listed, records, placing] = await Promise.all([
    session.labelsOf(entry),
    from === undefined ? undefined : session.labelsOf(session.catalogue.get(from)!),
    session.records(entry),
    features?.startsWith("prompt_features/") ? undefined : session.placing(entry),
  ]);
  return { labels, listed: listed ?? labels, records, placing };
}

function OneSae({ session, parts, saes, sae }: Props & { saes: VisionSae[]; sae: VisionSae }) {
  const from = sae.steering.find(({ folder }) => folder === parts["labels"])?.folder;
  const facts = useLoaded(`${sae.entry.folder} ${from ?? ""}`, () => loadFacts(session, sae, from));
  const query = parts["q"] ?? "";
  const settled = useSettled(query, 150);
  const order = (parts["by"] !== undefined && parts["by"] in ORDERS ? parts["by"] : "score") as Order;
  const shown = useMemo(() => (facts.value ? ordered(facts.value.listed.list, settled, order) : []), [facts.value, settled, order]);
  const latent = whole(parts["number"]) ?? (facts.value && strongest(facts.value.labels));
  const size = facts.value?.labels.list.length ?? 0;
  return (
    <div class="latent-view">
      <section class="search" aria-label="Latents">
        <div class="search-head">
          <select aria-label="Vision SAE" value={sae.key} onChange={(event) => set({ sae: event.currentTarget.value, number: undefined, labels: undefined })}>
            {saes.map(({ key, title }) => (
              <option key={key} value={key}>{title}</option>
            ))}
          </select>
          {sae.steering.length > 0 && (
            <label>
              labels from{" "}
              <select value={from ?? ""} onChange={(event) => set({ labels: event.currentTarget.value || undefined })}>
                <option value="">top images</option>
                {sae.steering.map(({ folder, name }) => (
                  <option key={folder} value={folder}>steering, {name}</option>
                ))}
              </select>
            </label>
          )}
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
              by{" "}
              <select value={order} onChange={(event) => set({ by: event.currentTarget.value })}>
                {Object.entries(ORDERS).map(([name, text]) => (
                  <option key={name} value={name}>{text}</option>
                ))}
              </select>
            </label>
            <label>
              latent{" "}
              <input type="number" min={0} max={Math.max(0, size - 1)} value={latent ?? ""} onChange={(event) => set({ number: whole(event.currentTarget.value) })} />
            </label>
          </span>
          <span class="muted" role="status">{facts.value ? said(facts.value.listed, shown.length) : facts.error ? "" : "loading labels …"}</span>
        </div>
        <Rows
          name="Latents"
          item="latent"
          height={HEIGHT}
          length={shown.length}
          place={shown.findIndex((label) => label.latent === latent)}
          onPlace={(place) => set({ number: shown[place]!.latent })}
        >
          {(place) => <Item label={shown[place]!} />}
        </Rows>
      </section>
      {facts.error ? (
        <Notice error={facts.error} />
      ) : !facts.value ? (
        <Waiting what="the vision SAE" />
      ) : latent === undefined || latent >= size ? (
        <Empty>This SAE has no latent {latent}: it has 0 to {size - 1}.</Empty>
      ) : (
        <One session={session} sae={sae} facts={facts.value} latent={latent} />
      )}
    </div>
  );
}

/** Return the first latent with the highest score. */
function strongest({ list }: Labels): number {
  return list.reduce((best, label) => (label.text !== null && label.share > (list[best]!.text === null ? -1 : list[best]!.share) ? label.latent : best), 0);
}

/** Return the labels that hold all words, in an order. */
function ordered(list: Label[], query: string, order: Order): Label[] {
  const words = query.toLowerCase().split(/\s+/).filter(Boolean);
  const lower = (label: Label) => label.text?.toLowerCase() ?? "";
  const found = words.length ? list.filter((label) => words.every((word) => lower(label).includes(word))) : [...list];
  const labelled = (label: Label) => Number(label.text !== null);
  if (order === "density") found.sort((a, b) => b.density - a.density || a.latent - b.latent);
  if (order === "score") found.sort((a, b) => labelled(b) - labelled(a) || b.share - a.share || a.latent - b.latent);
  return found;
}

function said({ list }: Labels, shown: number): string {
  const labelled = list.filter(({ text }) => text !== null).length;
  return shown === list.length ? `${count(list.length, "latent")}, ${labelled.toLocaleString("en")} labelled` : `${shown.toLocaleString("en")} of ${count(list.length, "latent")}`;
}

function Item({ label }: { label: Label }) {
  return (
    <span class="item-text">
      <span class={label.text === null ? "unlabelled" : "item-id"}>{label.text ?? "unlabelled"}</span>
      <span class="muted">
        {label.latent} · {label.density === 0 ? "silent" : `fires on ${percent(label.density)}`}
        {label.text !== null && ` · score ${number(label.share)}`}
      </span>
    </span>
  );
}

interface OneProps {
  session: Session;
  sae: VisionSae;
  facts: Facts;
  latent: number;
}

function One({ session, sae, facts, latent }: OneProps) {
  const { labels, records, placing } = facts;
  const label = labels.list[latent]!;
  const key = `${sae.entry.folder} ${latent}`;
  const top = useLoaded(`top ${key}`, () => topPlaces(session, sae.entry, latent));
  const steered = useLoaded(`steered ${key}`, () => steeredLabels(session, sae.steering, latent));
  const single = placing !== undefined && isSingle(new Geometry(1, 1, placing));
  const tokens = placing === undefined ? "word" : single ? "class token" : "patch";
  const point = samePoint(session, sae);
  return (
    <section class={`one ${top.fresh ? "" : "stale"}`} aria-label={`Latent ${latent} of ${sae.title}`}>
      <h2 class={label.text === null ? "unlabelled" : ""}>{label.text ?? "unlabelled"}</h2>
      <p class="muted">latent {latent} · vision SAE {labels.sae}</p>
      <dl class="numbers">
        <dt>label from</dt>
        <dd>{sae.entry.folder} <span class="muted">the classes of its top images</span></dd>
        <dt>{label.text === null ? "its most frequent class" : "its score"}</dt>
        <dd>in {percent(label.share)} <span class="muted">of its top images</span></dd>
        <dt>fires on</dt>
        <dd>{percent(label.density)} <span class="muted">of {many(labels.tokens, tokens)}{single ? ", one an image" : ""}</span></dd>
        {steered.value?.map((answer) => (
          <Said key={answer.entry.folder} answer={answer} />
        ))}
      </dl>
      {steered.error && <Notice error={steered.error} />}
      <Neighbours
        session={session}
        sae={session.catalogue.parent(sae.entry, "sae")}
        latent={latent}
        words={labels}
        link={(n) => hashOf({ view: "vision", parts: { sae: sae.key, number: String(n) } })}
      />
      <h3>{placing === undefined ? "Top prompts" : "Top images"}</h3>
      {placing !== undefined && (
        <p class="quiet">
          {single ? "Its tokens are class tokens, which stand for the whole image: no patch is marked." : "Marked is the patch where it fires most."}
        </p>
      )}
      {top.error ? (
        <Notice error={top.error} />
      ) : !top.value ? (
        <Waiting what="its images" />
      ) : !top.value.length ? (
        <p class="quiet">It fires at no image of its split.</p>
      ) : (
        <ul class="tiles two-lines">
          {top.value.map((place) => (
            <TopTile key={place.image} place={place} records={records} placing={placing} link={{ ...(point ? { a: point } : {}), ...(session.catalogue.points.length ? {} : { records: records.folder }), sae: sae.key, number: String(latent) }} exact={point !== undefined} />
          ))}
        </ul>
      )}
    </section>
  );
}

function many(n: number, noun: string): string {
  return noun === "patch" ? `${n.toLocaleString("en")} patches` : count(n, noun);
}

/** Return the point whose patches are those that the SAE reads. */
function samePoint({ catalogue }: Session, { entry }: VisionSae): string | undefined {
  const [features] = entry.parents["features"] ?? [];
  return catalogue.points.find((point) => point.entry.parents["features"]?.[0] === features)?.key;
}

/** What a language model made of the latent. */
function Said({ answer: { entry, label, coefficient, answer, gain, nearest } }: { answer: Steered }) {
  return (
    <>
      <dt>label by steering</dt>
      <dd>
        {label ?? <i>none</i>} <span class="muted">{entry.name} · gain {number(gain)} nats a token</span>
        <br />
        <span class="muted">answer at coefficient {number(coefficient)}:</span> {answer}
        {nearest !== null && <span class="muted"> · nearest name {nearest}</span>}
      </dd>
    </>
  );
}

interface TileProps {
  place: TopPlace;
  records: Records;
  placing: Placing | undefined;
  link: Record<string, string>;
  /** Whether the Images view has the same grid. */
  exact: boolean;
}

function TopTile({ place, records, placing, link, exact }: TileProps) {
  const [element, seen] = useSeen<HTMLLIElement>();
  const row = records.row(place.image);
  const loaded = useLoaded(seen && row !== undefined ? `${records.folder} ${row}` : undefined, () => records.record(row!));
  const record = loaded.value;
  const shows = place.classes.join(", ") || "no class";
  const value = <span>{number(place.activation)}</span>;
  if (placing === undefined) {
    return (
      <li class="tile" ref={element}>
        <p>{record?.captions[0] ?? place.image}</p>
        <p class="tile-text">{value} <span class="muted">{shows}</span></p>
      </li>
    );
  }
  const geometry = record && new Geometry(record.width, record.height, placing);
  const single = geometry !== undefined && isSingle(geometry);
  const patch = geometry && !single ? patchName(geometry, place.patch) : undefined;
  const parts = { ...link, image: place.image, ...(exact && patch ? { patch } : {}) };
  const where = patch === undefined ? "the whole image" : `patch ${patch}`;
  return (
    <li class="tile" ref={element}>
      <a href={hashOf({ view: "images", parts })} title={place.image} aria-label={`Image ${place.image}, ${where}: ${shows}, activation ${number(place.activation)}`}>
        <span class="tile-image">
          {record && geometry && (
            <svg viewBox={`${geometry.extent.x} ${geometry.extent.y} ${geometry.extent.width} ${geometry.extent.height}`} aria-hidden="true">
              <rect class="padding-ground" width={geometry.size} height={geometry.size} />
              <image class={record.width < 128 ? "coarse" : ""} href={records.image(row!, record.width <= 512 ? "images" : "thumbs")} {...geometry.image} preserveAspectRatio="none" />
              <rect class="patch-shadow" {...geometry.token(place.patch)} />
              <rect class="patch chosen" {...geometry.token(place.patch)} />
            </svg>
          )}
        </span>
        <span class="tile-text">{value} <span class="muted">{shows}</span></span>
        <span class="tile-text muted">{place.image}{patch === undefined ? "" : ` · patch ${patch}`}</span>
      </a>
    </li>
  );
}
