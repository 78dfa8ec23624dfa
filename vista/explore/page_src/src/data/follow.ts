/** What a run has made since the page was loaded. */

import { Catalogue } from "./catalogue";
import type { Entry } from "./catalogue";

/** What differs between two catalogues. */
export interface News {
  /** Artifacts that are new. */
  added: number;
  /** Folders of artifacts that were made again, or are gone. */
  changed: string[];
}

/** Compare two catalogues by folder and digest. */
export function newsBetween(before: Catalogue, after: Catalogue): News {
  const same = (a: Entry, b: Entry | undefined) => b !== undefined && a.digest === b.digest;
  return {
    added: after.entries.filter(({ folder }) => !before.get(folder)).length,
    changed: before.entries.filter((entry) => !same(entry, after.get(entry.folder))).map(({ folder }) => folder),
  };
}

/** Asks for the catalogue again; one that is unchanged costs an answer without content. */
export class Follower {
  #tag: string | undefined;

  /** Return the catalogue if it is another one than the last time, undefined if not. */
  async next(): Promise<Catalogue | undefined> {
    const headers: Record<string, string> = this.#tag ? { "If-None-Match": this.#tag } : {};
    // Past the browser's cache, which would hide that it is the same.
    const response = await fetch(new URL("./catalogue.json", document.baseURI), { headers, cache: "no-store" });
    if (response.status === 304) return undefined;
    if (!response.ok) throw new Error(`status ${response.status}`);
    const catalogue = new Catalogue(await response.json());
    this.#tag = response.headers.get("ETag") ?? undefined;
    return catalogue;
  }
}
