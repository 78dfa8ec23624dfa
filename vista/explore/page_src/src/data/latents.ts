/** Latents of a point of the sweep: those of an image, and the images of a latent. */

import { Problem } from "./http";
import { Store } from "./store";
import type { Numbers, Selection } from "./store";

/** A latent that fires at a token, and how strongly. */
export interface Active {
  latent: number;
  value: number;
  token: number;
}

/** An image at which a latent fires, at the token where it does so most. */
export interface TopImage {
  place: number;
  value: number;
  token: number;
}

/** Tokens at which a latent fires, by image, then token. */
export interface Firings {
  image: ArrayLike<number>;
  token: ArrayLike<number>;
  value: ArrayLike<number>;
}

/** A histogram from 0 to `most`. */
export interface Bins {
  counts: number[];
  most: number;
}

interface Group {
  start: number;
  tokens: number;
  slots: number;
  index: ArrayLike<number>;
  value: Float32Array;
  nnz: ArrayLike<number>;
  error: ArrayLike<number>;
  norm2: ArrayLike<number>;
  valid: ArrayLike<number>;
}

const GROUPS_KEPT = 128;

/** The latents of one layer at the tokens of one image. */
export class ImageLayer {
  readonly #group: Group;
  readonly #first: number;
  readonly tokens: number;

  constructor(group: Group, place: number) {
    this.#group = group;
    this.tokens = group.tokens;
    this.#first = (place - group.start) * group.tokens;
  }

  isValid(token: number): boolean {
    return this.#group.valid[this.#first + token] === 1;
  }

  /** Return how many latents fire at a token. */
  l0(token: number): number {
    return this.#group.nnz[this.#first + token]!;
  }

  /** Return the SAE's squared error at a token over the squared norm of the stream. */
  error(token: number): number {
    const n = this.#first + token;
    return this.#group.norm2[n]! ? this.#group.error[n]! / this.#group.norm2[n]! : 0;
  }

  /** Return the latents that fire at a token, strongest first. */
  active(token: number): Active[] {
    const found: Active[] = [];
    this.#each(token, (latent, value) => found.push({ latent, value, token }));
    return found.sort((a, b) => b.value - a.value);
  }

  /** Return each latent that fires at the image at its strongest token, strongest first. */
  strongest(): Active[] {
    const best = new Map<number, Active>();
    for (let token = 0; token < this.tokens; token++) {
      if (!this.isValid(token)) continue;
      this.#each(token, (latent, value) => {
        const known = best.get(latent);
        if (!known || value > known.value) best.set(latent, { latent, value, token });
      });
    }
    return [...best.values()].sort((a, b) => b.value - a.value);
  }

  /** Return the activation of a latent on every token, 0 where it is silent. */
  map(latent: number): Float32Array {
    const values = new Float32Array(this.tokens);
    for (let token = 0; token < this.tokens; token++) {
      if (!this.isValid(token)) continue;
      this.#each(token, (active, value) => {
        if (active === latent) values[token] = value;
      });
    }
    return values;
  }

  #each(token: number, see: (latent: number, value: number) => void): void {
    const { slots, index, value } = this.#group;
    const start = (this.#first + token) * slots;
    for (let slot = 0; slot < this.l0(token); slot++) see(index[start + slot]!, value[start + slot]!);
  }
}

/** A store of latents. Throws Problem where it is missing or damaged. */
export class LatentStore {
  readonly grid: [number, number];
  readonly layers: number[];
  readonly sizes: Map<number, number>;
  readonly #store: Store;
  readonly #groups = new Map<string, Promise<Group>>();
  readonly #kept = new Map<string, Promise<ArrayLike<number>>>();
  readonly #rows = new Map<string, Promise<number[]>>();
  #ids: Promise<string[]> | undefined;

  private constructor(store: Store) {
    this.#store = store;
    const attributes = store.attributes as {
      grid: [number, number];
      layers: Record<string, number>;
    };
    this.grid = attributes.grid;
    const sizes = Object.entries(attributes.layers).map(
      ([layer, size]) => [Number(layer), size] as const,
    );
    this.sizes = new Map(sizes.sort(([a], [b]) => a - b));
    this.layers = [...this.sizes.keys()];
  }

  static async open(folder: string): Promise<LatentStore> {
    const store = await Store.open(`results/${folder}/latents.zarr`, "vista latents");
    const { grid, layers } = store.attributes;
    if (!Array.isArray(grid) || typeof layers !== "object" || layers === null) {
      throw new Problem(`results/${folder}/latents.zarr is damaged: its attributes are wrong.`);
    }
    return new LatentStore(store);
  }

  /** Return the ids of the images, in the order of places. */
  ids(): Promise<string[]> {
    this.#ids ??= forget(this.#store.texts("tokens/image/image"), () => (this.#ids = undefined));
    return this.#ids;
  }

  /** Return one layer's latents at an image. Images of one chunk come together and are kept. */
  async image(layer: number, place: number): Promise<ImageLayer> {
    const name = group(layer, "image");
    const [images] = this.#store.shape(`${name}/nnz`) as [number];
    const chunk = this.#store.chunks(`${name}/nnz`)[0]!;
    const start = Math.floor(place / chunk) * chunk;
    const key = `${layer} ${start}`;
    let read = this.#groups.get(key);
    if (read) this.#groups.delete(key);
    else read = this.#read(name, start, Math.min(start + chunk, images));
    this.#groups.set(key, read);
    read.catch(() => this.#groups.delete(key));
    for (const old of this.#groups.keys()) {
      if (this.#groups.size <= GROUPS_KEPT) break;
      this.#groups.delete(old);
    }
    return new ImageLayer(await read, place);
  }

  async #read(name: string, start: number, stop: number): Promise<Group> {
    const images: Selection = [start, stop];
    const store = this.#store;
    const counts = store.numbers(`${name}/nnz`, images);
    const others = Promise.all([
      store.numbers(`${name}/error`, images),
      store.numbers(`${name}/norm2`, images),
      store.numbers("tokens/image/valid", images),
    ]);
    others.catch(() => undefined);
    const [nnz, index, value] = await Promise.all([
      counts,
      this.#slots(`${name}/index`, images, counts),
      this.#slots(`${name}/value`, images, counts),
    ]);
    const used = index.shape[2]!;
    const [error, norm2, valid] = await others;
    const tokens = nnz.shape[1]!;
    for (let n = 0; n < nnz.data.length; n++) {
      const last = n * used + nnz.data[n]! - 1;
      // NaN stands where a chunk is missing.
      if (nnz.data[n]! > used || (nnz.data[n]! > 0 && Number.isNaN(value.data[last]))) {
        throw store.lost(`${name}/value`);
      }
    }
    return {
      start,
      tokens,
      slots: used,
      index: index.data,
      value: value.data as Float32Array,
      nnz: nnz.data,
      error: error.data,
      norm2: norm2.data,
      valid: valid.data,
    };
  }

  /** Return the slots in use. Those of the first block, which is always there, are not waited for. */
  async #slots(name: string, images: Selection, counts: Promise<Numbers>): Promise<Numbers> {
    const store = this.#store;
    const block = Math.min(store.chunks(name)[2]!, store.shape(name)[2]!);
    const [first, nnz] = await Promise.all([store.numbers(name, images, null, [0, block]), counts]);
    const used = largest(nnz.data);
    if (used <= block || block === store.shape(name)[2]) return first;
    return joined(first, await store.numbers(name, images, null, [block, used]));
  }

  /** Return at how many images each latent of a layer fires. */
  imageCounts(layer: number): Promise<ArrayLike<number>> {
    return this.#whole(`${group(layer, "by_latent")}/image_count`);
  }

  /** Return at how many images a latent fires. */
  async imageCount(layer: number, latent: number): Promise<number> {
    return (await this.#row(`${group(layer, "by_latent")}/image_count`, latent, 1))[0]!;
  }

  /** Return the share of image tokens at which a latent fires. */
  async tokenShare(layer: number, latent: number): Promise<number> {
    const [[start, stop], tokens] = await Promise.all([this.#bounds(layer, latent), this.#tokens(layer)]);
    return (stop - start) / Math.max(tokens, 1);
  }

  /** Return how many image tokens there are. */
  async #tokens(layer: number): Promise<number> {
    const known = this.#store.attributesOf(`${group(layer, "by_latent")}/offset`)["valid_tokens"];
    if (typeof known === "number") return known;
    // A store of an earlier version does not say.
    const valid = await this.#whole("tokens/image/valid");
    let tokens = 0;
    for (let n = 0; n < valid.length; n++) tokens += valid[n]!;
    return tokens;
  }

  /** Return where the entries of a latent begin and end. */
  async #bounds(layer: number, latent: number): Promise<[number, number]> {
    const [start, stop] = await this.#row(`${group(layer, "by_latent")}/offset`, latent, 2);
    return [start!, stop!];
  }

  /** Return numbers of an array from `start` on: out of all of them where these are there already,
   * or come together. */
  async #row(name: string, start: number, length: number): Promise<number[]> {
    const together = this.#store.chunks(name)[0]! >= this.#store.shape(name)[0]!;
    const rows: Selection = [start, start + length];
    if (together || this.#kept.has(name)) {
      return Array.prototype.slice.call(await this.#whole(name), ...rows) as number[];
    }
    // Several parts of a page ask for the same row at the same time.
    const key = `${name} ${start}`;
    let read = this.#rows.get(key);
    if (!read) {
      read = this.#store.numbers(name, rows).then(({ data }) => Array.from(data));
      this.#rows.set(key, read);
      const done = () => this.#rows.delete(key);
      read.then(done, done);
    }
    return read;
  }

  /** Return the places of the images at which a latent fires most, strongest first. */
  async top(layer: number, latent: number): Promise<TopImage[]> {
    const name = group(layer, "by_latent");
    const row: Selection = [latent, latent + 1];
    const [fires, image, token, value] = await Promise.all([
      this.imageCount(layer, latent),
      this.#store.numbers(`${name}/top_image`, row),
      this.#store.numbers(`${name}/top_token`, row),
      this.#store.numbers(`${name}/top_value`, row),
    ]);
    return Array.from({ length: Math.min(fires, image.shape[1]!) }, (_, n) => ({
      place: image.data[n]!,
      token: token.data[n]!,
      value: value.data[n]!,
    }));
  }

  /** Return the activation of a latent on the tokens of each of its top images, which `top` gives. */
  async topMaps(layer: number, latent: number, top: Promise<TopImage[]>): Promise<Float32Array[]> {
    const name = `${group(layer, "by_latent")}/top_map`;
    const tokens = this.grid[0] * this.grid[1];
    if (!this.#store.has(name)) {
      const [firings, list] = await Promise.all([this.firings(layer, latent), top]);
      return list.map(({ place }) => mapOf(firings, place, tokens));
    }
    const [{ data }, list] = await Promise.all([this.#store.numbers(name, [latent, latent + 1]), top]);
    // NaN stands where a chunk is missing.
    if (Number.isNaN(data[0])) throw this.#store.lost(name);
    return list.map((_, rank) => Float32Array.from(data.subarray(rank * tokens, (rank + 1) * tokens)));
  }

  /** Return how many activations of a latent lie in each equal part of 0 to its largest one, which
   * is that of the first of its top images. */
  async histogram(layer: number, latent: number, top: Promise<TopImage[]>): Promise<Bins> {
    const name = `${group(layer, "by_latent")}/histogram`;
    // A store of an earlier version has none.
    if (!this.#store.has(name)) return binned((await this.firings(layer, latent)).value);
    const [{ data }, list] = await Promise.all([this.#store.numbers(name, [latent, latent + 1]), top]);
    return { counts: Array.from(data), most: Math.max(0, list[0]?.value ?? 0) };
  }

  /** Return the places of the images at which a latent fires; one may come more than once. */
  async firingImages(layer: number, latent: number): Promise<ArrayLike<number>> {
    const [start, stop] = await this.#bounds(layer, latent);
    if (start === stop) return [];
    return (await this.#store.numbers(`${group(layer, "by_latent")}/image_index`, [start, stop])).data;
  }

  /** Return all tokens at which a latent fires. */
  async firings(layer: number, latent: number): Promise<Firings> {
    const name = group(layer, "by_latent");
    const range = await this.#bounds(layer, latent);
    if (range[0] === range[1]) return { image: [], token: [], value: [] };
    const [image, token, value] = await Promise.all(
      ["image_index", "token_index", "value"].map((column) =>
        this.#store.numbers(`${name}/${column}`, range),
      ),
    );
    return { image: image!.data, token: token!.data, value: value!.data };
  }

  #whole(name: string): Promise<ArrayLike<number>> {
    let read = this.#kept.get(name);
    if (!read) {
      read = this.#store.numbers(name).then(({ data }) => data);
      this.#kept.set(name, forget(read, () => this.#kept.delete(name)));
    }
    return read;
  }
}

/** Return the histogram of values, as stores have it. */
function binned(values: ArrayLike<number>, bins = 32): Bins {
  let most = 0;
  for (let n = 0; n < values.length; n++) most = Math.max(most, values[n]!);
  const counts = new Array<number>(bins).fill(0);
  for (let n = 0; n < values.length; n++) {
    const bin = most > 0 ? Math.floor((bins * Math.max(values[n]!, 0)) / most) : 0;
    counts[Math.min(bins - 1, bin)]! += 1;
  }
  return { counts, most };
}

/** Return the activation of a latent on each token of an image, out of its firings. */
export function mapOf(firings: Firings, place: number, tokens: number): Float32Array {
  const values = new Float32Array(tokens);
  let [low, high] = [0, firings.image.length];
  while (low < high) {
    const middle = (low + high) >> 1;
    if (firings.image[middle]! < place) low = middle + 1;
    else high = middle;
  }
  for (; low < firings.image.length && firings.image[low] === place; low++) {
    values[firings.token[low]!] = firings.value[low]!;
  }
  return values;
}

function group(layer: number, name: string): string {
  return `layer_${String(layer).padStart(2, "0")}/${name}`;
}

/** Put arrays [image, token, slot] beside each other along the slots. */
function joined(first: Numbers, rest: Numbers): Numbers {
  const [images, tokens, left] = first.shape as [number, number, number];
  const right = rest.shape[2]!;
  const width = left + right;
  const data = first.data.slice(0, 0).constructor as new (length: number) => Numbers["data"];
  const all = new data(images * tokens * width);
  for (let n = 0; n < images * tokens; n++) {
    all.set(first.data.subarray(n * left, (n + 1) * left), n * width);
    all.set(rest.data.subarray(n * right, (n + 1) * right), n * width + left);
  }
  return { data: all, shape: [images, tokens, width] };
}

function largest(values: ArrayLike<number>): number {
  let most = 0;
  for (let n = 0; n < values.length; n++) most = Math.max(most, values[n]!);
  return most;
}

/** A promise that failed is not kept. */
function forget<T>(promise: Promise<T>, drop: () => void): Promise<T> {
  promise.catch(drop);
  return promise;
}
