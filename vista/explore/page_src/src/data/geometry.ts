/** How an image lies on the patch grid of a vision model: vista/data/geometry.py, for the page. */

/** The content of geometry.json. */
export interface Placing {
  size: number;
  patch: number;
  fit: "pad" | "crop";
  per_patch?: number;
  pool?: number;
}

export interface Rectangle {
  x: number;
  y: number;
  width: number;
  height: number;
}

/** Lengths are px of the model's input, in which the image lies at `image`. */
export class Geometry {
  readonly size: number;
  readonly perPatch: number;
  readonly side: number;
  readonly step: number;
  readonly image: Rectangle;

  constructor(width: number, height: number, placing: Placing) {
    const { size, patch, fit, pool } = placing;
    this.size = size;
    this.perPatch = placing.per_patch ?? 1;
    this.side = pool ?? Math.floor(size / patch);
    this.step = pool ? (Math.floor(size / patch) * patch) / pool : patch;
    const scale = size / (fit === "pad" ? Math.max(width, height) : Math.min(width, height));
    const [w, h] = [Math.max(1, even(width * scale)), Math.max(1, even(height * scale))];
    this.image = { x: Math.floor((size - w) / 2), y: Math.floor((size - h) / 2), width: w, height: h };
  }

  get rows(): number {
    return this.side;
  }

  get columns(): number {
    return this.side * this.perPatch;
  }

  /** Return the rectangle of a token; tokens of one patch share it from left to right. */
  token(token: number): Rectangle {
    const row = Math.floor(token / this.columns);
    const column = token % this.columns;
    const width = this.step / this.perPatch;
    return { x: column * width, y: row * this.step, width, height: this.step };
  }

  /** Return the token at a point, or undefined outside of the grid. */
  at(x: number, y: number): number | undefined {
    const row = Math.floor(y / this.step);
    const column = Math.floor((x / this.step) * this.perPatch);
    const inside = row >= 0 && row < this.rows && column >= 0 && column < this.columns;
    return inside ? row * this.columns + column : undefined;
  }

  /** Return the token of another grid at the same place of the image. */
  same(token: number, other: Geometry): number | undefined {
    const { x, y, width, height } = this.token(token);
    const [u, v] = [
      (x + width / 2 - this.image.x) / this.image.width,
      (y + height / 2 - this.image.y) / this.image.height,
    ];
    return other.at(
      other.image.x + u * other.image.width,
      other.image.y + v * other.image.height,
    );
  }

  /** Return a rectangle of image px in px of the input. `width` is the image's. */
  fromImage(box: Rectangle, width: number, height: number): Rectangle {
    const [sx, sy] = [this.image.width / width, this.image.height / height];
    return {
      x: this.image.x + box.x * sx,
      y: this.image.y + box.y * sy,
      width: box.width * sx,
      height: box.height * sy,
    };
  }

  /** Return what there is to show: the model's input and all of the image. */
  get extent(): Rectangle {
    const { x, y, width, height } = this.image;
    const [left, top] = [Math.min(0, x), Math.min(0, y)];
    return {
      x: left,
      y: top,
      width: Math.max(this.size, x + width) - left,
      height: Math.max(this.size, y + height) - top,
    };
  }
}

/** Return whether one token stands for the whole image, as a class token does. */
export function isSingle(geometry: Geometry): boolean {
  return geometry.rows * geometry.columns === 1;
}

/** Round half to even, as Python does. */
function even(value: number): number {
  const low = Math.floor(value);
  const rest = value - low;
  if (rest === 0.5) return low % 2 ? low + 1 : low;
  return Math.round(value);
}
