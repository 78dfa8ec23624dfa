/** Edits: captions before and after, with controls beside; failures are found by the score. */

import { useMemo, useRef } from "preact/hooks";
import { hashOf, set } from "../address";
import type { Parts } from "../address";
import { controlName, editSets, loadEdits } from "../data/edits";
import type { Edited, EditSet } from "../data/edits";
import { Geometry } from "../data/geometry";
import type { Placing } from "../data/geometry";
import type { Records } from "../data/records";
import type { Session } from "../data/session";
import { useLoaded, useSeen } from "../hooks";
import { count } from "../text";
import { Empty, Notice, Waiting } from "./notice";
import { Thumbnail } from "./list";

const SCORES = ["failed", "done, with new details", "clean"];
// Patches outside of the object: the control that the method's own captions hold.
const OUTSIDE = "outside";
const MOST = 300;

interface Props {
  session: Session;
  parts: Parts;
}

export function Edits({ session, parts }: Props) {
  const sets = editSets(session.catalogue);
  // What is shown stays so when more is finished.
  const shown = useRef<string | undefined>(undefined);
  const named = (wanted: string | undefined) => sets.find(({ name }) => name === wanted);
  const chosen = named(parts["edit"]) ?? named(shown.current) ?? sets[0];
  shown.current = chosen?.name;
  if (!chosen) return <Empty>This run has no edited captions: its config has no interventions, or they are not finished.</Empty>;
  return <OneSet key={chosen.name} session={session} parts={parts} sets={sets} edits={chosen} />;
}

interface Data {
  own: Edited[];
  controls: { name: string; byItem: Map<string, Edited[]> }[];
  records: Records;
  placing: Placing | undefined;
}

/** The same image, source and target. */
function itemOf({ image, source, target }: Edited): string {
  return JSON.stringify([image, source, target]);
}

async function load(session: Session, { captions, scores, controls }: EditSet): Promise<Data> {
  const features = session.catalogue.parent(captions, "features");
  const [own, records, placing, ...others] = await Promise.all([
    loadEdits(session, captions, scores),
    session.records(captions),
    features ? session.placing(captions) : undefined,
    ...controls.map(async (entry) => {
      const test = session.catalogue.parent(entry, "test");
      const edits = test ? await loadEdits(session, test, entry) : [];
      const byItem = new Map<string, Edited[]>();
      for (const edit of edits) byItem.set(itemOf(edit), [...(byItem.get(itemOf(edit)) ?? []), edit]);
      return { name: controlName(entry, scores), byItem };
    }),
  ]);
  return { own, controls: others, records, placing };
}

function OneSet({ session, parts, sets, edits }: Props & { sets: EditSet[]; edits: EditSet }) {
  const data = useLoaded(edits.name, () => load(session, edits), session);
  const places = useMemo(() => [...new Set(data.value?.own.map(({ blocks }) => blocks))].sort(), [data.value]);
  const variants = useMemo(() => [...new Set(data.value?.own.map(({ variant }) => variant))].filter((name) => name !== OUTSIDE), [data.value]);
  const lengths = useMemo(() => [...new Set(data.value?.own.map(({ coefficient }) => coefficient))].sort((a, b) => a - b), [data.value]);
  if (data.error) return <Notice error={data.error} />;
  if (!data.value) return <Waiting what="the edits" />;
  const reported = data.value.own.find(({ chosen }) => chosen);
  const variant = parts["variant"] ?? reported?.variant ?? variants[0];
  const coefficient = parts["by"] === undefined ? (reported?.coefficient ?? lengths[0]) : Number(parts["by"]);
  const blocks = parts["blocks"] ?? reported?.blocks ?? places[0];
  const query = (parts["q"] ?? "").toLowerCase();
  const pool = data.value.own.filter((edit) => edit.variant === variant && edit.coefficient === coefficient && edit.blocks === blocks);
  const counts = [0, 1, 2].map((score) => pool.filter((edit) => edit.score === score).length);
  const rows = pool.filter(
    (edit) =>
      (parts["score"] === undefined || String(edit.score) === parts["score"]) &&
      (query === "" || `${edit.image} ${edit.source} ${edit.target ?? ""} ${edit.before} ${edit.after}`.toLowerCase().includes(query)),
  );
  return (
    <div class="edits">
      <div class="filters" role="group" aria-label="Filters">
        <label class="long">
          <span>edit</span>
          <select value={edits.name} onChange={(event) => set({ edit: event.currentTarget.value, variant: undefined, by: undefined, blocks: undefined })}>
            {sets.map(({ name }) => (
              <option key={name}>{name}</option>
            ))}
          </select>
        </label>
        {variants.length > 1 && (
          <label>
            <span>patches</span>
            <select value={variant} onChange={(event) => set({ variant: event.currentTarget.value })}>
              {variants.map((name) => (
                <option key={name}>{name}</option>
              ))}
            </select>
          </label>
        )}
        <label>
          <span>coefficient</span>
          <select value={String(coefficient)} onChange={(event) => set({ by: event.currentTarget.value })}>
            {lengths.map((length) => (
              <option key={length} value={String(length)}>
                {length}{length === reported?.coefficient ? " (reported)" : ""}
              </option>
            ))}
          </select>
        </label>
        {places.length > 1 && (
          <label>
            <span>blocks</span>
            <select value={blocks} onChange={(event) => set({ blocks: event.currentTarget.value })}>
              {places.map((name) => (
                <option key={name}>{name}</option>
              ))}
            </select>
          </label>
        )}
        {edits.scores && (
          <label>
            <span>score</span>
            <select value={parts["score"] ?? ""} onChange={(event) => set({ score: event.currentTarget.value || undefined })}>
              <option value="">all ({pool.length})</option>
              {SCORES.map((name, score) => (
                <option key={score} value={String(score)}>{`${score} ${name} (${counts[score]})`}</option>
              ))}
            </select>
          </label>
        )}
        <label>
          <span>search</span>
          <input type="search" id="filter" aria-label="Search captions" value={parts["q"] ?? ""} onInput={(event) => set({ q: event.currentTarget.value || undefined })} />
        </label>
        <span class="muted" role="status">{count(rows.length, "edit")}{rows.length > MOST ? `, the first ${MOST} are shown` : ""}</span>
      </div>
      {!edits.scores && <p class="quiet pad">These captions are not scored yet.</p>}
      <ol class="edit-list">
        {rows.slice(0, MOST).map((edit) => (
          <EditRow key={edit.key} edit={edit} data={data.value!} />
        ))}
      </ol>
      {!rows.length && <Empty>No edit passes these filters.</Empty>}
    </div>
  );
}

function EditRow({ edit, data }: { edit: Edited; data: Data }) {
  const { own, controls, records } = data;
  const row = records.row(edit.image);
  const alike = (other: Edited) => other.coefficient === edit.coefficient && other.blocks === edit.blocks && itemOf(other) === itemOf(edit);
  const outside = own.find((other) => other.variant === OUTSIDE && alike(other));
  const beside = [
    ...(outside ? [{ name: "other patches", edit: outside }] : []),
    ...controls.flatMap(({ name, byItem }) => {
      const same = byItem.get(itemOf(edit))?.find((other) => other.variant === edit.variant && alike(other));
      return same ? [{ name, edit: same }] : [];
    }),
  ];
  return (
    <li class="edit">
      <Picture edit={edit} data={data} row={row} />
      <div class="edit-text">
        <p class="edit-head">
          <a href={hashOf({ view: "images", parts: { image: edit.image } })}>{edit.image}</a>{" "}
          {edit.target === null ? <>take away <b>{edit.source}</b></> : <><b>{edit.source}</b> → <b>{edit.target}</b></>}
          <Score score={edit.score} />
          {!edit.found && <span class="muted"> no direction for it</span>}
          {edit.newDetails.length > 0 && <span class="muted"> new: {edit.newDetails.join(", ")}</span>}
        </p>
        <dl>
          <dt>before</dt>
          <dd><Caption text={edit.before} edit={edit} /></dd>
          <dt>after</dt>
          <dd><Caption text={edit.after} edit={edit} /></dd>
          {beside.map((control) => (
            <>
              <dt class="muted">{control.name}</dt>
              <dd class="muted"><Caption text={control.edit.after} edit={edit} /> <Score score={control.edit.score} /></dd>
            </>
          ))}
        </dl>
      </div>
    </li>
  );
}

/** The image with its edited patches, where the artifact says which. */
function Picture({ edit, data: { records, placing }, row }: { edit: Edited; data: Data; row: number | undefined }) {
  const [element, seen] = useSeen<HTMLSpanElement>();
  const loaded = useLoaded(seen && row !== undefined ? `${records.folder} ${row}` : undefined, () => records.record(row!));
  const record = loaded.value;
  const geometry = record && placing && new Geometry(record.width, record.height, placing);
  if (row === undefined) return <span class="thumb" />;
  return (
    <span class="edit-image" ref={element}>
      {geometry && record ? (
        <svg viewBox={`${geometry.extent.x} ${geometry.extent.y} ${geometry.extent.width} ${geometry.extent.height}`} role="img" aria-label={`Image ${edit.image}`}>
          <image class={record.width < 128 ? "coarse" : ""} href={records.image(row, record.width <= 512 ? "images" : "thumbs")} {...geometry.image} preserveAspectRatio="none" />
          {edit.patches?.map((token) => <rect key={token} class="edited" {...geometry.token(token)} />)}
        </svg>
      ) : (
        seen && !placing && <Thumbnail source={records.image(row, "thumbs")} />
      )}
    </span>
  );
}

function Score({ score }: { score: number | null }) {
  if (score === null) return null;
  return <span class={`score s${score}`} title={`score ${score} of 2`}>{SCORES[score]}</span>;
}

/** A caption in which the names of source and target stand out. */
function Caption({ text, edit }: { text: string; edit: Edited }) {
  if (!text.trim()) return <span class="muted">(empty)</span>;
  return (
    <>
      {text.split(/(\s+)/).map((word, n) => {
        const bare = word.toLowerCase().replace(/[^\p{L}\p{N}]/gu, "");
        if (bare === edit.source.toLowerCase()) return <mark key={n} class="source">{word}</mark>;
        if (edit.target !== null && bare === edit.target.toLowerCase()) return <mark key={n} class="target">{word}</mark>;
        return word;
      })}
    </>
  );
}
