/** Files of the page's own origin, whole or by byte ranges, with errors that are sentences. */

/** What went wrong, as one sentence for the person who looks at the page. */
export class Problem extends Error {}

/** A file that the server does not have. */
export class Missing extends Problem {}

// The first request for the end of a file asks for at least this much: a small file comes whole.
const READ_AHEAD = 16384;

/** Return where a path below the page lies; names are encoded, so that none leaves the page. */
export function address(path: string): string {
  return `./${path.split("/").map(encodeURIComponent).join("/")}`;
}

async function request(path: string, headers: Record<string, string> = {}): Promise<Response> {
  let response: Response;
  try {
    response = await fetch(new URL(address(path), pageBase()), { headers });
  } catch {
    throw new Problem(`${path} could not be loaded: the server does not answer. Is it still running?`);
  }
  if (response.status === 404) throw new Missing(`${path} is not there.`);
  if (response.status === 401 || response.status === 403) {
    throw new Problem(
      `The server refuses ${path} (status ${response.status}): open the address that vista explore printed.`,
    );
  }
  if (!response.ok) throw new Problem(`${path} could not be loaded: status ${response.status}.`);
  return response;
}

let base: string | undefined;

/** Set the folder that paths are below, where there is no page (in Node). */
export function setBase(url: string): void {
  base = url;
}

export function pageBase(): string {
  return base ?? document.baseURI;
}

/** Return a whole file. */
export async function fetchBytes(path: string): Promise<Uint8Array> {
  return body(path, await request(path));
}

/** Return a JSON file. */
export async function fetchJson(path: string): Promise<unknown> {
  const bytes = await fetchBytes(path);
  try {
    return JSON.parse(new TextDecoder().decode(bytes));
  } catch {
    throw new Problem(`${path} is damaged: it is no JSON.`);
  }
}

/** Return a text file. */
export async function fetchText(path: string): Promise<string> {
  return new TextDecoder().decode(await fetchBytes(path));
}

async function body(path: string, response: Response): Promise<Uint8Array> {
  try {
    return new Uint8Array(await response.arrayBuffer());
  } catch {
    throw new Problem(`${path} could not be loaded: the connection broke off.`);
  }
}

interface Part {
  start: number;
  bytes: Uint8Array;
  size: number;
}

async function fetchPart(path: string, range: string): Promise<Part> {
  const response = await request(path, { Range: `bytes=${range}` });
  // A server without ranges sends the whole file; its start would pass for any other part.
  if (response.status !== 206) {
    throw new Problem(
      "This server does not send byte ranges, so parts of large files cannot be read: use vista explore, or a server with ranges.",
    );
  }
  const found = /^bytes (\d+)-(\d+)\/(\d+)$/.exec(response.headers.get("Content-Range") ?? "");
  if (!found) throw new Problem(`${path}: the server does not say which part of it it sent.`);
  const bytes = await body(path, response);
  const [start, stop, size] = [Number(found[1]), Number(found[2]), Number(found[3])];
  if (bytes.length !== stop - start + 1) throw new Problem(`${path} came incomplete; load again.`);
  return { start, bytes, size };
}

/** A file that is read in parts. Its end, once read, is kept. */
export class RemoteFile {
  #end: Promise<Part> | undefined;

  /** `ahead` bytes of the end are read at once, or more where more are asked for. */
  constructor(
    readonly path: string,
    private readonly ahead = READ_AHEAD,
  ) {}

  /** Return the last `length` bytes, or all of a shorter file. */
  async last(length: number): Promise<Uint8Array> {
    const part = await this.#ending(length);
    return part.bytes.slice(Math.max(0, part.bytes.length - length));
  }

  /** Return the size of the file in bytes. */
  async size(): Promise<number> {
    return (await this.#ending(8)).size;
  }

  /** Return `length` bytes from `start`. */
  async part(start: number, length: number): Promise<Uint8Array> {
    if (length === 0) return new Uint8Array(0);
    const end = await this.#end;
    if (end && start >= end.start) {
      const bytes = end.bytes.slice(start - end.start, start - end.start + length);
      if (bytes.length < length) throw new Problem(`${this.path} is damaged: it is cut off.`);
      return bytes;
    }
    const part = await fetchPart(this.path, `${start}-${start + length - 1}`);
    if (part.start !== start || part.bytes.length !== length) {
      throw new Problem(`${this.path} is damaged: it is cut off.`);
    }
    return part.bytes;
  }

  async #ending(length: number): Promise<Part> {
    if (this.#end) {
      const known = await this.#end.catch(() => undefined);
      if (known && (known.bytes.length >= length || known.start === 0)) return known;
    }
    this.#end = fetchPart(this.path, `-${Math.max(length, this.ahead)}`);
    // A failure is not kept: the next reader asks again.
    this.#end.catch(() => (this.#end = undefined));
    return this.#end;
  }
}
