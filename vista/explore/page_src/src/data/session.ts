/** What is open of a run: every store, table and file once. */

import { Catalogue } from "./catalogue";
import type { Entry } from "./catalogue";
import type { Placing } from "./geometry";
import { Missing, Problem } from "./http";
import { Labels } from "./labels";
import { LatentStore } from "./latents";
import { readPlacing, Records } from "./records";
import { Table } from "./table";

export class Session {
  readonly #open = new Map<string, Promise<unknown>>();

  /** `age` counts the catalogues in which an artifact was made again or is gone. */
  constructor(readonly catalogue: Catalogue, readonly age = 0) {}

  /** Return the session of a newer catalogue, with what is open but for artifacts that changed. */
  after(catalogue: Catalogue, changed: string[]): Session {
    const next = new Session(catalogue, this.age + Number(changed.length > 0));
    for (const [key, made] of this.#open) {
      if (!changed.some((folder) => key.includes(folder))) next.#open.set(key, made);
    }
    return next;
  }

  /** Return what `open` gives, once for a key; failures are tried again. */
  once<T>(key: string, open: () => Promise<T>): Promise<T> {
    let made = this.#open.get(key) as Promise<T> | undefined;
    if (!made) {
      made = open();
      made.catch(() => this.#open.delete(key));
      this.#open.set(key, made);
    }
    return made;
  }

  latents(entry: Entry): Promise<LatentStore> {
    return this.once(entry.folder, () => LatentStore.open(entry.folder));
  }

  /** Return the places of a point's images by id. */
  places(entry: Entry): Promise<Map<string, number>> {
    return this.once(`places ${entry.folder}`, async () => {
      const ids = await (await this.latents(entry)).ids();
      return new Map(ids.map((id, place) => [id, place]));
    });
  }

  /** Return the records of the images of a point, or of a vision SAE's labels. */
  records(entry: Entry): Promise<Records> {
    return this.recordsIn(this.#input(entry, "records"));
  }

  recordsIn(folder: string): Promise<Records> {
    return this.once(folder, () => Records.open(folder));
  }

  /** Return how their images lie on the patch grid. */
  placing(entry: Entry): Promise<Placing> {
    const folder = this.#input(entry, "features");
    return this.once(`placing ${folder}`, () => readPlacing(folder));
  }

  table(path: string): Promise<Table> {
    return this.once(path, () => Table.open(path));
  }

  #input(entry: Entry, role: string): string {
    const folder = entry.parents[role]?.[0];
    if (folder === undefined || !this.catalogue.get(folder)) {
      throw new Problem(`${entry.folder}: its ${role} are not in these results.`);
    }
    return folder;
  }

  /** Return the labels of a layer of latents, undefined where its SAE has none. */
  async labels(entry: Entry, layer: number): Promise<Labels | undefined> {
    const sources = this.catalogue.labels(entry);
    const known = sources.find((source) => source.layer === layer);
    if (known) return this.labelsOf(known);
    for (const source of sources) {
      if (source.layer !== undefined) continue;
      const table = await this.labelsOf(source);
      if (table.layer === layer) return table;
    }
    return undefined;
  }

  /** Return the labels of all layers of latents. */
  async allLabels(entry: Entry): Promise<Labels[]> {
    const tables = await Promise.all(this.catalogue.labels(entry).map((source) => this.labelsOf(source)));
    return tables.sort((a, b) => a.layer - b.layer);
  }

  /** Return the folder of the labels of a layer. */
  async labelSource(entry: Entry, layer: number): Promise<Entry | undefined> {
    for (const source of this.catalogue.labels(entry)) {
      if ((source.layer ?? (await this.labelsOf(source)).layer) === layer) return source;
    }
    return undefined;
  }

  /** Return the labels of an artifact of labels. */
  labelsOf(source: Entry): Promise<Labels> {
    return this.once(source.folder, async () => {
      try {
        return await Labels.open(source.folder);
      } catch (error) {
        if (error instanceof Missing) throw new Problem(`The labels ${source.folder} are missing.`);
        throw error;
      }
    });
  }
}
