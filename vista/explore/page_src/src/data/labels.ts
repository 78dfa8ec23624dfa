/** Labels of the latents of one SAE. They are anybody's text: shown as text, never as HTML. */

import { Table } from "./table";

export interface Label {
  latent: number;
  /** null: nobody gave it a label. */
  text: string | null;
  share: number;
  density: number;
  auroc: number | null;
}

export class Labels {
  private constructor(
    readonly layer: number,
    readonly sae: string,
    /** 0 where the labels come from elsewhere. */
    readonly tokens: number,
    readonly list: Label[],
    private readonly table: Table,
  ) {}

  /** Open a folder STAGE/NAME-ID of label_latents, import_labels or label_vision_latents. */
  static async open(folder: string): Promise<Labels> {
    const table = await Table.open(`results/${folder}/labels.parquet`);
    const columns = table.columns.filter((name) => ["label", "share", "density", "auroc"].includes(name));
    const rows = await table.read(columns);
    const list = rows.map((row, latent) => ({
      latent,
      text: (row["label"] ?? null) as string | null,
      share: (row["share"] ?? 0) as number,
      density: (row["density"] ?? 0) as number,
      auroc: (row["auroc"] ?? null) as number | null,
    }));
    const { layer, sae, tokens } = table.metadata;
    return new Labels(Number(layer), sae ?? "", Number(tokens ?? 0), list, table);
  }

  /** Return a latent's strongest places in text; the token stands in «». */
  async contexts(latent: number): Promise<string[]> {
    const [row] = await this.table.read(["contexts"], latent, latent + 1);
    return (row?.["contexts"] ?? []) as string[];
  }
}

/** Return the latents whose label holds all words, those that begin with the text first. */
export function search(tables: Labels[], text: string, most: number): { layer: number; label: Label }[] {
  const words = text.toLowerCase().split(/\s+/).filter(Boolean);
  if (!words.length) return [];
  const found: { layer: number; label: Label; rank: number }[] = [];
  for (const { layer, list } of tables) {
    for (const label of list) {
      const lower = label.text?.toLowerCase();
      if (lower === undefined || !words.every((word) => lower.includes(word))) continue;
      const rank = lower === words.join(" ") ? 0 : lower.startsWith(words[0]!) ? 1 : 2;
      found.push({ layer, label, rank });
    }
  }
  return found
    .sort((a, b) => a.rank - b.rank || a.layer - b.layer || a.label.latent - b.label.latent)
    .slice(0, most);
}
