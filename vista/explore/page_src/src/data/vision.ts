/** The latents of vision SAEs: labels, and the images at which each fires most. */

import type { Catalogue, Entry } from "./catalogue";
import type { Session } from "./session";

/** Stages that make vision SAEs, and those that label their latents. */
const SAES = ["train_vision_sae", "train_guided_sae", "import_vision_sae"];
const LABELS = ["label_vision_latents", "label_guided_latents"];

export interface VisionSae {
  /** Its name in addresses: without the id where no other labels have this name. */
  key: string;
  title: string;
  /** The artifact of its labels. */
  entry: Entry;
  /** Labels that a language model gave when it read a blank image that was steered. */
  steering: Entry[];
}

/** Return the vision SAEs whose latents are labelled, those behind the last report first. */
export function visionSaes(catalogue: Catalogue): VisionSae[] {
  const labelled = catalogue.of(...LABELS);
  const names = labelled.map(({ name }) => name);
  return labelled.map((entry) => {
    const id = entry.folder.split("/")[1]!;
    const single = names.filter((name) => name === entry.name).length === 1;
    const parts = [entry.encoder, entry.method].filter((part) => part !== undefined);
    const title = parts.length === 2 ? parts.join(" · ") : entry.name;
    return {
      key: single ? entry.name : id,
      title: title + (single ? "" : ` · ${id}`) + (entry.unreported ? " · not in the report" : ""),
      entry,
      steering: catalogue
        .of("label_by_steering")
        .filter(({ parents }) => parents["sae"]?.[0] === entry.parents["sae"]?.[0]),
    };
  });
}

/** Return the names of vision SAEs that are trained and not labelled. */
export function unlabelledSaes(catalogue: Catalogue): string[] {
  const labelled = new Set(catalogue.of(...LABELS).map(({ parents }) => parents["sae"]?.[0]));
  return catalogue.of(...SAES).filter(({ folder }) => !labelled.has(folder)).map(({ name }) => name);
}

/** One of the images at which a latent fires most, by the patch where it fires most. */
export interface TopPlace {
  rank: number;
  image: string;
  patch: number;
  activation: number;
  classes: string[];
}

/** Return a latent's top images, strongest first. */
export async function topPlaces(session: Session, entry: Entry, latent: number): Promise<TopPlace[]> {
  const table = await session.table(`results/${entry.folder}/top.parquet`);
  const rows = await table.where("latent", latent);
  return rows
    .map((row) => ({
      rank: row["rank"] as number,
      image: row["image_id"] as string,
      patch: row["patch"] as number,
      activation: row["activation"] as number,
      classes: (row["classes"] ?? []) as string[],
    }))
    .sort((a, b) => a.rank - b.rank);
}

/** What a language model said of a blank image that was steered along a latent. */
export interface Steered {
  entry: Entry;
  label: string | null;
  coefficient: number;
  answer: string;
  gain: number | null;
  nearest: string | null;
}

/** Return what was said of a latent; nothing where it was not steered. */
export async function steeredLabels(session: Session, entries: Entry[], latent: number): Promise<Steered[]> {
  const found = await Promise.all(
    entries.map(async (entry) => {
      const table = await session.table(`results/${entry.folder}/steering.parquet`);
      const rows = await table.where("latent", latent);
      return rows.map((row) => ({
        entry,
        label: (row["label"] ?? null) as string | null,
        coefficient: row["coefficient"] as number,
        answer: (row["answer"] ?? "") as string,
        gain: (row["gain"] ?? null) as number | null,
        nearest: (row["nearest"] ?? null) as string | null,
      }));
    }),
  );
  return found.flat();
}
