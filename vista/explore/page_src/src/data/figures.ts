/** The long table: every measured figure of a run. */

import type { Entry } from "./catalogue";
import { Missing } from "./http";
import { fetchText } from "./http";
import type { Session } from "./session";

/** Columns that tell figures apart; one that does not apply is null. */
export const KEYS = ["metric", "of", "set", "k", "encoder", "llm", "sae_weight", "seed", "control", "method", "layer", "token_kind"] as const;
export type Key = (typeof KEYS)[number];

export interface Figure extends Record<Key, string | number | null> {
  metric: string;
  value: number | null;
  ci_low: number | null;
  ci_high: number | null;
  chance: number | null;
  n: number;
}

const POINT = ["encoder", "llm", "sae_weight", "seed", "control", "method"] as const;

export interface FigureTable {
  list: Figure[];
  /** Whether it is the report's table, or put together from what is finished. */
  whole: boolean;
}

/** Return the report's table or, before there is one, the rows of all finished metrics. */
export async function loadFigures(session: Session): Promise<FigureTable> {
  const { catalogue } = session;
  if (catalogue.report !== null && catalogue.get(catalogue.report)) {
    const table = await session.table(`results/${catalogue.report}/summary.parquet`);
    return { list: (await table.read()) as unknown as Figure[], whole: true };
  }
  const parts = await Promise.all(catalogue.entries.filter(({ metric }) => metric).map((entry) => rowsOf(session, entry)));
  return { list: parts.flat(), whole: false };
}

async function rowsOf(session: Session, entry: Entry): Promise<Figure[]> {
  let rows: Figure[];
  try {
    rows = (await (await session.table(`results/${entry.folder}/rows.parquet`)).read()) as unknown as Figure[];
  } catch (error) {
    if (error instanceof Missing) return [];
    throw error;
  }
  // A metric says what it measured; the catalogue, at which point.
  return rows.map((row) => ({
    ...row,
    ...Object.fromEntries(POINT.map((key) => [key, row[key] ?? entry[key] ?? null])),
  }));
}

export interface Picture {
  title: string;
  path: string;
}

/** Return the pictures that a report's summary shows. */
export async function loadPictures(report: string): Promise<Picture[]> {
  const text = await fetchText(`results/${report}/summary.md`);
  return [...text.matchAll(/!\[([^\]]*)\]\((figures\/[\w.-]+\.png)\)/g)].map(([, title, path]) => ({
    title: title!.replace(/\\(.)/g, "$1"),
    path: `results/${report}/${path}`,
  }));
}

/** Return a key's text as it stands in filters and addresses. */
export function keyText(value: string | number | null): string {
  return value === null || value === "" ? "none" : String(value);
}
