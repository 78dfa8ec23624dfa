/** Records of images: captions, objects, and where the image itself is. */

import { address, fetchJson } from "./http";
import { Table } from "./table";
import type { Placing, Rectangle } from "./geometry";

export interface ImageObject extends Rectangle {
  category: string;
  crowd: boolean;
  /** COCO's compressed run lengths, null where there is no mask. */
  mask: string | null;
}

export interface ImageRecord {
  row: number;
  id: string;
  split: string;
  width: number;
  height: number;
  captions: string[];
  objects: ImageObject[];
}

const COLUMNS = ["image_id", "split", "width", "height", "captions", "turns", "objects"];
// Rows that are decoded together: a row group as it is written.
const BLOCK = 8192;

export class Records {
  readonly #blocks = new Map<number, Promise<ImageRecord[]>>();

  private constructor(
    readonly folder: string,
    private readonly table: Table,
    private readonly rows: Map<string, number>,
  ) {}

  static async open(folder: string): Promise<Records> {
    const table = await Table.open(`results/${folder}/records.parquet`);
    const ids = await table.read(["image_id"]);
    return new Records(folder, table, new Map(ids.map((row, n) => [row["image_id"] as string, n])));
  }

  /** Return the ids of all images, in their order. */
  ids(): string[] {
    return [...this.rows.keys()];
  }

  /** Return the row of an image, undefined if there is none. */
  row(id: string): number | undefined {
    return this.rows.get(id);
  }

  /** Return the record of a row. */
  async record(row: number): Promise<ImageRecord | undefined> {
    return (await this.#block(Math.floor(row / BLOCK)))[row % BLOCK];
  }

  /** Return the records of rows; all blocks that they need are read. */
  async all(rows: number[]): Promise<(ImageRecord | undefined)[]> {
    return Promise.all(rows.map((row) => this.record(row)));
  }

  #block(block: number): Promise<ImageRecord[]> {
    let read = this.#blocks.get(block);
    if (!read) {
      const start = block * BLOCK;
      read = this.table
        .read(COLUMNS, start, Math.min(start + BLOCK, this.table.rows))
        .then((rows) => rows.map((row, n) => toRecord(row, start + n)));
      read.catch(() => this.#blocks.delete(block));
      this.#blocks.set(block, read);
    }
    return read;
  }

  /** Return the address of the image of a row, or of its thumbnail. */
  image(row: number, kind: "images" | "thumbs"): string {
    return address(`${kind}/${this.folder.split("/")[1]}/${row}.png`);
  }
}

function toRecord(row: Record<string, unknown>, n: number): ImageRecord {
  const captions = (row["captions"] ?? []) as string[];
  const turns = (row["turns"] ?? []) as { answer: string }[];
  return {
    row: n,
    id: row["image_id"] as string,
    split: row["split"] as string,
    width: row["width"] as number,
    height: row["height"] as number,
    captions: captions.length ? captions : turns.slice(0, 1).map((turn) => turn.answer),
    objects: ((row["objects"] ?? []) as ImageObject[]).map((item) => ({ ...item, mask: item.mask ?? null })),
  };
}

/** Return the classes of an image, each once. */
export function classes(record: ImageRecord): string[] {
  return [...new Set(record.objects.map((item) => item.category))];
}

/** Return how images lie on the patch grid of features. */
export async function readPlacing(folder: string): Promise<Placing> {
  return (await fetchJson(`results/${folder}/geometry.json`)) as Placing;
}
