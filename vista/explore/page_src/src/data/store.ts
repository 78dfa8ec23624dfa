/** A Zarr v3 store of an artifact: arrays by name, rows of them, every checksum compared. */

import * as zarr from "zarrita";
import { fromHalf, registerCodecs } from "./codecs";
import { fetchJson, Missing, Problem, RemoteFile } from "./http";

/** Numbers of an array in C order, with its shape. */
export interface Numbers {
  data: Uint8Array | Uint16Array | Uint32Array | Int32Array | Float32Array | Float64Array;
  shape: number[];
}

/** A selection along an axis: from, to; null is all of it. */
export type Selection = [number, number] | null;

type Json = Record<string, unknown>;
type AnyArray = zarr.Array<zarr.DataType, zarr.Readable>;

// What stands where a chunk is missing, so that it is told from data.
const NO_HALF = 0x7e00;
// Bytes of the end of a shard that are read at once. Its index is known to be shorter, or is asked
// for by its length; a small shard comes whole.
const SHARD_AHEAD = 2048;
const LARGEST: Record<string, number> = { uint8: 0xff, uint16: 0xffff, uint32: 0xffffffff };

/** Store of bytes for zarrita: parts of files by HTTP ranges. */
function byteStore(root: string): zarr.Readable {
  const files = new Map<string, RemoteFile>();
  const store = {
    async get(): Promise<Uint8Array | undefined> {
      throw new Error("metadata are read from the consolidated ones alone");
    },
    async getRange(key: string, range: zarr.RangeQuery): Promise<Uint8Array | undefined> {
      const path = root + key;
      let file = files.get(path);
      if (!file) files.set(path, (file = new RemoteFile(path, SHARD_AHEAD)));
      try {
        if ("suffixLength" in range) return await file.last(range.suffixLength);
        return await file.part(range.offset, range.length);
      } catch (error) {
        if (error instanceof Missing) throw new Problem(`${path} is missing: the artifact is damaged.`);
        throw error;
      }
    },
  };
  return zarr.withRangeCoalescing(store as unknown as zarr.AsyncReadable) as unknown as zarr.Readable;
}

/** A sealed store. Throws Problem where it is missing, unfinished or damaged. */
export class Store {
  readonly attributes: Json;
  readonly #nodes: Record<string, Json>;
  readonly #bytes: zarr.Readable;
  readonly #arrays = new Map<string, AnyArray>();

  private constructor(readonly path: string, root: Json) {
    registerCodecs();
    this.attributes = root["attributes"] as Json;
    const consolidated = root["consolidated_metadata"] as { metadata: Record<string, Json> };
    this.#nodes = consolidated.metadata;
    this.#bytes = byteStore(path);
  }

  /** Open the store at `path`, of a format such as "vista latents". */
  static async open(path: string, format: string): Promise<Store> {
    const root = (await fetchJson(`${path}/zarr.json`)) as Json;
    const attributes = root["attributes"] as Json | undefined;
    if (!attributes || !String(attributes["format"]).startsWith(format)) {
      throw new Problem(`${path} is no store of ${format}.`);
    }
    if (attributes["complete"] !== true || !root["consolidated_metadata"]) {
      throw new Problem(`${path} is not finished.`);
    }
    return new Store(path, root);
  }

  /** Return the names of all arrays. */
  arrayNames(): string[] {
    return Object.keys(this.#nodes).filter((name) => this.#nodes[name]!["node_type"] === "array");
  }

  has(name: string): boolean {
    return name in this.#nodes;
  }

  shape(name: string): number[] {
    return this.#node(name)["shape"] as number[];
  }

  /** Return the attributes of an array. */
  attributesOf(name: string): Json {
    return (this.#node(name)["attributes"] ?? {}) as Json;
  }

  /** Return the lengths of an inner chunk, by axis. */
  chunks(name: string): number[] {
    return this.#array(name).chunks;
  }

  #node(name: string): Json {
    const node = this.#nodes[name];
    if (!node) throw new Problem(`${this.path} has no array ${name}.`);
    return node;
  }

  #array(name: string): AnyArray {
    let array = this.#arrays.get(name);
    if (!array) {
      const node = { ...this.#node(name) };
      const type = node["data_type"] as string;
      // Node and older browsers have no Float16Array: the bits are read, and translated.
      if (type === "float16") Object.assign(node, { data_type: "uint16", fill_value: NO_HALF });
      else if (type in LARGEST) node["fill_value"] = LARGEST[type];
      else if (type.startsWith("float")) node["fill_value"] = "NaN";
      array = new zarr.Array(this.#bytes, `/${name}`, node as unknown as zarr.ArrayMetadata) as AnyArray;
      this.#arrays.set(name, array);
    }
    return array;
  }

  async #get(name: string, selection: Selection[]): Promise<{ data: unknown; shape: number[] }> {
    const array = this.#array(name);
    const axes = array.shape.map((_, axis) => {
      const range = selection[axis];
      return range ? zarr.slice(range[0], range[1]) : null;
    });
    try {
      const chunk = (await zarr.get(array, axes)) as { data: unknown; shape: number[] };
      return chunk;
    } catch (error) {
      if (error instanceof Problem) throw error;
      const cause = error instanceof Error ? (error.cause ?? error) : error;
      if (cause instanceof Problem) throw cause;
      const reason = cause instanceof Error ? cause.message : String(cause);
      throw new Problem(`${this.path}/${name} is damaged (${reason}): rebuild this artifact.`);
    }
  }

  /** Return numbers of an array; int64 as doubles, booleans as 0 and 1. */
  async numbers(name: string, ...selection: Selection[]): Promise<Numbers> {
    const { data, shape } = await this.#get(name, selection);
    const type = this.#node(name)["data_type"] as string;
    if (type === "float16") return { data: fromHalf(data as Uint16Array), shape };
    if (data instanceof BigInt64Array || data instanceof BigUint64Array) {
      return { data: Float64Array.from(data, Number), shape };
    }
    if (type === "bool") return { data: Uint8Array.from(data as Iterable<boolean>, Number), shape };
    return { data: data as Numbers["data"], shape };
  }

  /** Return the texts of an array. */
  async texts(name: string, ...selection: Selection[]): Promise<string[]> {
    const { data } = await this.#get(name, selection);
    return data as string[];
  }

  /** Say that a chunk of an array is missing. */
  lost(name: string): Problem {
    return new Problem(`${this.path}/${name} is damaged (a chunk is missing): rebuild this artifact.`);
  }
}
