/** Latents of an SAE whose decoder rows point the same way. */

import type { Entry } from "./catalogue";
import { fetchJson, Missing, Problem } from "./http";
import type { Session } from "./session";

export interface Neighbour {
  latent: number;
  cosine: number;
}

/** Return the neighbours of a latent, nearest first; none where nothing has them.
 *
 * A server computes them; an export has a table of them for each SAE. */
export async function loadNeighbours(session: Session, sae: Entry, latent: number): Promise<Neighbour[]> {
  if (!sae.neighbours) return [];
  try {
    return session.catalogue.live ? await asked(sae, latent) : await written(session, sae, latent);
  } catch (error) {
    if (error instanceof Missing) return [];
    throw error;
  }
}

async function asked(sae: Entry, latent: number): Promise<Neighbour[]> {
  const path = `neighbours/${sae.folder}/${latent}`;
  const { neighbours } = (await fetchJson(path)) as { neighbours?: [number, number][] };
  if (!Array.isArray(neighbours)) throw new Problem(`${path} is damaged.`);
  return neighbours.map(([latent, cosine]) => ({ latent, cosine }));
}

async function written(session: Session, sae: Entry, latent: number): Promise<Neighbour[]> {
  const table = await session.table(`neighbours/${sae.folder}.parquet`);
  const [row] = await table.read(["latents", "cosines"], latent, latent + 1);
  const cosines = (row?.["cosines"] ?? []) as number[];
  return ((row?.["latents"] ?? []) as number[]).map((latent, n) => ({ latent, cosine: cosines[n]! }));
}
