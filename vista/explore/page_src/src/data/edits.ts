/** Edited captions: what was asked, the caption before and after, its score, and controls. */

import type { Catalogue, Entry } from "./catalogue";
import type { Row } from "./table";
import type { Session } from "./session";

/** One image with what is to go and what is to come, under one edit. */
export interface Edited {
  key: string;
  image: string;
  source: string;
  target: string | null;
  variant: string;
  coefficient: number;
  /** Blocks after which the stream was edited, as text; "" where the config lists none. */
  blocks: string;
  before: string;
  after: string;
  /** Whether the method has the directions that the edit needs. */
  found: boolean;
  /** 0 failed, 1 done with new details, 2 clean; null: not scored. */
  score: number | null;
  newDetails: string[];
  /** Whether it is the edit that the method is reported at. */
  chosen: boolean;
  /** Edited tokens; undefined where the artifact does not say. */
  patches: number[] | undefined;
}

/** Edited captions of a method, with their scores where there are any. */
export interface EditSet {
  name: string;
  captions: Entry;
  scores: Entry | undefined;
  controls: Entry[];
}

/** Return what a control's name has more than that of the method that it is of. */
export function controlName(control: Entry, scores: Entry | undefined): string {
  const own = scores?.name.split("-") ?? [];
  return control.name.split("-").filter((part) => !own.includes(part)).join(" ").replaceAll("_", " ");
}

/** Return the sets of edits of a run; controls stand beside the method that they are of. */
export function editSets(catalogue: Catalogue): EditSet[] {
  const all = catalogue.of("intervention");
  const reported = all.filter((entry) => !entry.unreported);
  const scored = reported.length ? reported : all;
  const sets = scored
    .filter((entry) => !entry.parents["method"]?.length)
    .flatMap((scores) => {
      const captions = catalogue.parent(scores, "test");
      const controls = scored.filter((entry) => entry.parents["method"]?.[0] === scores.folder);
      return captions ? [{ name: scores.name, captions, scores, controls }] : [];
    });
  if (scored.length) return sets;
  return catalogue.of("edit_captions").map((captions) => ({ name: captions.name, captions, scores: undefined, controls: [] }));
}

const UNEDITED = "none";

function itemKey(row: Row): string {
  return JSON.stringify([row["image_id"], row["source"], row["target"] ?? null]);
}

function editKey(row: Row): string {
  return JSON.stringify([itemKey(row), row["variant"], row["coefficient"], row["blocks"] ?? null]);
}

/** Return all edits of edited captions, with their scores. */
export async function loadEdits(session: Session, captions: Entry, scores: Entry | undefined): Promise<Edited[]> {
  const table = await session.table(`results/${captions.folder}/captions.parquet`);
  const [rows, scored] = await Promise.all([
    table.read(),
    scores ? session.table(`results/${scores.folder}/items.parquet`).then((items) => items.read()) : [],
  ]);
  const before = new Map<string, string>();
  for (const row of rows) if (row["variant"] === UNEDITED) before.set(itemKey(row), row["caption"] as string);
  const byEdit = new Map(scored.map((row) => [editKey(row), row]));
  return rows
    .filter((row) => row["variant"] !== UNEDITED)
    .map((row) => {
      const score = byEdit.get(editKey(row));
      return {
        key: editKey(row),
        image: row["image_id"] as string,
        source: row["source"] as string,
        target: (row["target"] ?? null) as string | null,
        variant: row["variant"] as string,
        coefficient: row["coefficient"] as number,
        blocks: ((row["blocks"] ?? []) as number[]).join(", "),
        before: before.get(itemKey(row)) ?? "",
        after: row["caption"] as string,
        found: row["found"] !== false,
        score: (score?.["score"] ?? null) as number | null,
        newDetails: (score?.["new_details"] ?? []) as string[],
        chosen: score?.["chosen"] === true,
        patches: row["patches"] as number[] | undefined,
      };
    });
}
