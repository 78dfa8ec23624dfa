/** Codecs of Zarr chunks that differ from zarrita's own: checked sums, zstd, strings, fp16. */

import { decompress } from "fzstd";
import { registry } from "zarrita";
import { crc32c } from "./crc32c";

/** A chunk whose content is not what was written. */
export class DamagedChunk extends Error {}

function cannotEncode(): never {
  throw new Error("this page writes nothing");
}

/** zarrita drops the sum; here it is compared. */
const checked = {
  kind: "bytes_to_bytes" as const,
  encode: cannotEncode,
  decode(bytes: Uint8Array): Uint8Array {
    const end = bytes.length - 4;
    const content = bytes.subarray(0, Math.max(end, 0));
    const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
    if (end < 0 || view.getUint32(end, true) !== crc32c(content)) {
      throw new DamagedChunk("a checksum differs");
    }
    return content;
  },
  computeEncodedSize: (size: number) => size + 4,
};

/** Pure JavaScript: WebAssembly would need a wider content security policy. */
const zstd = {
  kind: "bytes_to_bytes" as const,
  encode: cannotEncode,
  decode: unzstd,
};

/** Return the content of a zstd frame in a buffer of its own. */
export function unzstd(bytes: Uint8Array): Uint8Array {
  // A view of a larger buffer would mislead readers that take `.buffer`.
  return decompress(bytes).slice();
}

/** Strings: decoded at once where all are ASCII, as ids are. */
class Strings {
  readonly kind = "array_to_bytes" as const;
  readonly encode = cannotEncode;

  constructor(private readonly shape: number[]) {}

  decode(bytes: Uint8Array): { data: string[]; shape: number[]; stride: number[] } {
    const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
    const data = new Array<string>(view.getUint32(0, true));
    const decoder = new TextDecoder();
    const ascii = bytes.every((byte, n) => byte < 128 || n < 4);
    const whole = ascii ? decoder.decode(bytes) : "";
    let at = 4;
    for (let n = 0; n < data.length; n++) {
      const length = view.getUint32(at, true);
      at += 4;
      if (at + length > bytes.length) throw new DamagedChunk("a text is cut off");
      data[n] = ascii ? whole.slice(at, at + length) : decoder.decode(bytes.subarray(at, at + length));
      at += length;
    }
    const stride = this.shape.map((_, axis) => this.shape.slice(axis + 1).reduce((a, b) => a * b, 1));
    return { data, shape: this.shape, stride };
  }
}

let registered = false;

/** Make zarrita use these codecs. */
export function registerCodecs(): void {
  if (registered) return;
  registered = true;
  const codecs = registry as unknown as Map<string, () => unknown>;
  codecs.set("crc32c", () => ({ fromConfig: () => checked }));
  codecs.set("zstd", () => ({ fromConfig: () => zstd }));
  codecs.set("vlen-utf8", () => ({
    fromConfig: (_: unknown, meta: { shape: number[] }) => new Strings(meta.shape),
  }));
}

const HALVES = new Float32Array(65536);
for (let bits = 0; bits < 65536; bits++) HALVES[bits] = half(bits);

function half(bits: number): number {
  const sign = bits & 0x8000 ? -1 : 1;
  const exponent = (bits >> 10) & 31;
  const fraction = bits & 1023;
  if (exponent === 31) return fraction ? NaN : sign * Infinity;
  if (exponent === 0) return sign * fraction * 2 ** -24;
  return sign * (1 + fraction / 1024) * 2 ** (exponent - 15);
}

/** Return the numbers that fp16 bits stand for; not every engine has Float16Array. */
export function fromHalf(bits: Uint16Array): Float32Array {
  const values = new Float32Array(bits.length);
  for (let n = 0; n < bits.length; n++) values[n] = HALVES[bits[n]!]!;
  return values;
}
