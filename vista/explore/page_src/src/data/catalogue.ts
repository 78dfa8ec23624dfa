/** What a run has made: the catalogue, and which artifacts belong together. */

import { fetchJson, Missing, Problem } from "./http";

export interface Entry {
  folder: string;
  stage: string;
  name: string;
  parents: Record<string, string[]>;
  encoder?: string;
  llm?: string;
  sae_weight?: number;
  seed?: number;
  control?: string;
  method?: string;
  layer?: number;
  /** The start of the digest of all its bytes. */
  digest?: string;
  /** Whether the latents of an SAE have neighbours to show. */
  neighbours?: boolean;
  /** "MODEL/SOURCE" of an SAE, or of labels, at Neuronpedia. */
  neuronpedia?: string;
  /** Whether it is a metric, with rows of the long table. */
  metric?: boolean;
  /** Whether the last report is not made from it. */
  unreported?: boolean;
}

/** A point of the sweep at which latents were read. */
export interface Point {
  /** Its name in addresses: without the id where the run has no other of this name. */
  key: string;
  title: string;
  entry: Entry;
}

const LABEL_STAGES = ["label_latents", "import_labels"];

export class Catalogue {
  readonly run: string | null;
  readonly report: string | null;
  readonly live: boolean;
  readonly notes: string[];
  readonly entries: Entry[];
  readonly points: Point[];
  readonly #byFolder: Map<string, Entry>;
  readonly #labels = new Map<string, Entry[]>();

  constructor(content: unknown) {
    const { format, run, report, artifacts, live, notes } = content as Record<string, unknown>;
    if (typeof format !== "string" || !format.startsWith("vista catalogue ") || !Array.isArray(artifacts)) {
      throw new Problem("catalogue.json is no catalogue of a run.");
    }
    this.run = typeof run === "string" ? run : null;
    this.report = typeof report === "string" ? report : null;
    this.live = live === true;
    this.notes = Array.isArray(notes) ? notes.map(String) : [];
    this.entries = artifacts as Entry[];
    this.#byFolder = new Map(this.entries.map((entry) => [entry.folder, entry]));
    this.points = namePoints(this.of("latents"));
  }

  static async load(): Promise<Catalogue> {
    try {
      return new Catalogue(await fetchJson("catalogue.json"));
    } catch (error) {
      if (error instanceof Missing) {
        throw new Problem("There is no catalogue.json: the folder has no run yet. Run snakemake.");
      }
      throw error;
    }
  }

  /** Return the artifacts of stages, those behind the last report first. */
  of(...stages: string[]): Entry[] {
    const found = this.entries.filter((entry) => stages.includes(entry.stage));
    return found.sort((a, b) => Number(a.unreported ?? false) - Number(b.unreported ?? false));
  }

  get(folder: string | undefined): Entry | undefined {
    return folder === undefined ? undefined : this.#byFolder.get(folder);
  }

  /** Return an artifact's input of a role, if the catalogue has it. */
  parent(entry: Entry, role: string): Entry | undefined {
    return this.get(entry.parents[role]?.[0]);
  }

  /** Return the labels of the SAEs behind latents: an artifact each, at most one an SAE. */
  labels(latents: Entry): Entry[] {
    let labels = this.#labels.get(latents.folder);
    if (!labels) this.#labels.set(latents.folder, (labels = this.#labelsOf(latents)));
    return labels;
  }

  /** Return what differs when other labels of latents are finished. */
  labelsKey(latents: Entry | undefined): string {
    return latents ? this.labels(latents).map(({ folder, digest }) => `${folder} ${digest}`).join(" ") : "";
  }

  #labelsOf(latents: Entry): Entry[] {
    const saes = latents.parents["saes"] ?? [];
    const bySae = new Map<string, Entry>();
    for (const entry of this.of(...LABEL_STAGES)) {
      const [sae] = entry.parents["sae"] ?? [];
      if (sae !== undefined && saes.includes(sae) && !bySae.has(sae)) bySae.set(sae, entry);
    }
    return saes.flatMap((sae) => bySae.get(sae) ?? []);
  }

  /** Return the SAE of a layer of latents, if the catalogue has it. */
  sae(latents: Entry, layer: number): Entry | undefined {
    const saes = (latents.parents["saes"] ?? []).map((folder) => this.get(folder));
    return saes.find((sae) => sae?.layer === layer);
  }

  point(key: string | undefined): Point | undefined {
    return this.points.find((point) => point.key === key || point.entry.folder.endsWith(`/${key}`));
  }

  /** Return the two points that are compared first: the smallest and the largest weight of an
   * encoder and LLM of which there are several, without controls. */
  pair(): [Point | undefined, Point | undefined] {
    const plain = this.points.filter(({ entry }) => entry.control === undefined && !entry.unreported);
    const pool = plain.length ? plain : this.points;
    const groups = new Map<string, Point[]>();
    // Points that differ by a split alone: the one with the shortest name is that of the test images.
    for (const point of [...pool].sort((a, b) => a.entry.name.length - b.entry.name.length)) {
      const { encoder, llm, sae_weight, seed } = point.entry;
      const group = groups.get(`${encoder} ${llm}`) ?? [];
      if (!group.some(({ entry }) => entry.sae_weight === sae_weight && entry.seed === seed)) group.push(point);
      groups.set(`${encoder} ${llm}`, group);
    }
    const weights = (group: Point[]) => new Set(group.map(({ entry }) => entry.sae_weight)).size;
    const [first] = [...groups.values()].sort((a, b) => weights(b) - weights(a));
    const sorted = (first ?? []).sort(
      (a, b) => (a.entry.sae_weight ?? 0) - (b.entry.sae_weight ?? 0) || (a.entry.seed ?? 0) - (b.entry.seed ?? 0),
    );
    const low = sorted[0];
    const most = sorted.at(-1)?.entry.sae_weight;
    const high = sorted.filter(({ entry }) => entry.sae_weight === most && most !== low?.entry.sae_weight);
    return [low, high.find(({ entry }) => entry.seed === low?.entry.seed) ?? high[0]];
  }

  /** Return the point that another one is compared with: of other weight, else otherwise alike. */
  beside(point: Point | undefined): Point | undefined {
    if (!point) return undefined;
    const [low, high] = this.pair();
    const alike = this.points.filter(
      ({ entry }) =>
        entry.encoder === point.entry.encoder &&
        entry.llm === point.entry.llm &&
        entry.seed === point.entry.seed &&
        entry.control === point.entry.control &&
        entry.sae_weight !== point.entry.sae_weight,
    );
    const sibling = [...alike].sort((a, b) => a.entry.name.length - b.entry.name.length)[0];
    return sibling ?? (high?.key === point.key ? low : high);
  }
}

function namePoints(latents: Entry[]): Point[] {
  // What the last report is not made from is named as such, and clouds no other name.
  const current = latents.filter((entry) => !entry.unreported);
  return latents.map((entry) => {
    const alike = (entry.unreported ? latents : current).filter((other) => title(other) === title(entry));
    const single = !entry.unreported && current.filter(({ name }) => name === entry.name).length === 1;
    const id = entry.folder.split("/")[1]!;
    const more = entry.unreported ? ` · not in the report (${id})` : single ? rest(entry, alike) : ` · ${id}`;
    return { key: single ? entry.name : id, title: title(entry) + more, entry };
  });
}

/** Return what a name has more than the shortest one of points with the same title. */
function rest({ name }: Entry, alike: Entry[]): string {
  const [shortest] = alike.map((other) => other.name).sort((a, b) => a.length - b.length);
  if (name === shortest) return "";
  return name.startsWith(`${shortest}-`) ? ` · ${name.slice(shortest!.length + 1)}` : ` · ${name}`;
}

function title({ name, encoder, llm, sae_weight, seed, control }: Entry): string {
  if (encoder === undefined) return name;
  const parts = [
    encoder,
    llm,
    sae_weight === undefined ? undefined : `weight ${sae_weight}`,
    seed === undefined ? undefined : `seed ${seed}`,
    control,
  ];
  return parts.filter((part) => part !== undefined).join(" · ");
}
