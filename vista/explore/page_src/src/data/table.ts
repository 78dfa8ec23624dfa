/** A Parquet file by row and column ranges. */

import { parquetMetadataAsync, parquetReadObjects } from "hyparquet";
import type { AsyncBuffer, FileMetaData } from "hyparquet";
import { unzstd } from "./codecs";
import { Problem, RemoteFile } from "./http";

export type Row = Record<string, unknown>;

/** A table. Throws Problem where it is missing or damaged. */
export class Table {
  private constructor(
    readonly path: string,
    private readonly buffer: AsyncBuffer,
    private readonly meta: FileMetaData,
  ) {}

  static async open(path: string): Promise<Table> {
    const file = new RemoteFile(path);
    const buffer: AsyncBuffer = {
      byteLength: await file.size(),
      async slice(start: number, end?: number): Promise<ArrayBuffer> {
        const stop = end ?? buffer.byteLength;
        const bytes = await file.part(start, stop - start);
        return bytes.buffer as ArrayBuffer;
      },
    };
    return damagedAs(path, async () => {
      const meta = await parquetMetadataAsync(buffer, { initialFetchSize: 8192 });
      return new Table(path, buffer, meta);
    });
  }

  get rows(): number {
    return Number(this.meta.num_rows);
  }

  /** Return the names of the columns. */
  get columns(): string[] {
    const names = this.meta.row_groups[0]?.columns.map((column) => column.meta_data?.path_in_schema[0]);
    return [...new Set(names?.filter((name) => name !== undefined))];
  }

  /** Return the file's metadata by key. */
  get metadata(): Record<string, string> {
    const pairs = this.meta.key_value_metadata ?? [];
    return Object.fromEntries(pairs.map(({ key, value }) => [key, value ?? ""]));
  }

  /** Return rows from `start` to `stop`, of some columns or of all. int64 become numbers. */
  async read(columns?: string[], start = 0, stop = this.rows): Promise<Row[]> {
    if (stop <= start) return [];
    const part = { rowStart: start, rowEnd: stop, useOffsetIndex: true };
    return this.#rows({ ...part, ...(columns ? { columns } : {}) });
  }

  /** Return the rows with a value in a column of int32; pages whose index excludes it are not read. */
  async where(column: string, value: number): Promise<Row[]> {
    return this.#rows({ filter: { [column]: { $eq: value } }, usePageIndex: true });
  }

  #rows(options: Omit<Parameters<typeof parquetReadObjects>[0], "file">): Promise<Row[]> {
    return damagedAs(this.path, async () => {
      const rows = await parquetReadObjects({
        ...options,
        file: this.buffer,
        metadata: this.meta,
        compressors: { ZSTD: unzstd },
      });
      return rows.map(plain) as Row[];
    });
  }
}

function plain(value: unknown): unknown {
  if (typeof value === "bigint") return Number(value);
  if (value instanceof Date || value === null || typeof value !== "object") return value;
  if (Array.isArray(value) || ArrayBuffer.isView(value)) {
    return Array.from(value as unknown as ArrayLike<unknown>, plain);
  }
  return Object.fromEntries(Object.entries(value).map(([key, inner]) => [key, plain(inner)]));
}

async function damagedAs<T>(path: string, read: () => Promise<T>): Promise<T> {
  try {
    return await read();
  } catch (error) {
    if (error instanceof Problem) throw error;
    const reason = error instanceof Error ? error.message : String(error);
    throw new Problem(`${path} is damaged (${reason}): rebuild this artifact.`);
  }
}
