/** What the server computes with the run's models: latents of an image that is sent, captions. */

import type { Active } from "./latents";
import type { Placing } from "./geometry";
import { fetchJson, pageBase, Problem } from "./http";

/** The latents of an image that is not in the run. */
export interface LiveLayer {
  layer: number;
  /** By token, strongest first. */
  tokens: Active[][];
  l0: number[];
  labels: Map<number, string | null>;
}

export interface LiveLatents {
  width: number;
  height: number;
  placing: Placing;
  layers: LiveLayer[];
}

export interface Edit {
  layer: number;
  latent: number;
  change: "add" | "subtract" | "ablate" | "clamp";
  strength: number;
  patches: number[];
  blocks: number[];
}

export interface Captions {
  question: string;
  unedited: string;
  edited: string[];
  random: string[];
}

/** Is told, while a request waits, how many are before it. */
export type Waiting = (before: number) => void;

const ASK_AGAIN = 1000; // ms

async function post(path: string, query: Record<string, string>, body: Blob | string, signal: AbortSignal, waiting: Waiting): Promise<Record<string, unknown>> {
  const ticket = crypto.randomUUID();
  let done = false;
  const timer = setInterval(async () => {
    const { before } = (await fetchJson(`live/queue/${ticket}`).catch(() => ({}))) as { before?: number };
    if (!done) waiting(before ?? 0);
  }, ASK_AGAIN);
  waiting(0);
  let response: Response;
  try {
    const address = `./live/${path}?${new URLSearchParams({ ...query, ticket })}`;
    response = await fetch(new URL(address, pageBase()), { method: "POST", body, signal });
  } catch (error) {
    if (signal.aborted) throw error;
    throw new Problem("The server does not answer. Is it still running?");
  } finally {
    done = true;
    clearInterval(timer);
  }
  let answer: Record<string, unknown>;
  try {
    answer = (await response.json()) as Record<string, unknown>;
  } catch {
    throw new Problem(`The server refuses this (status ${response.status}).`);
  }
  if (!response.ok) throw new Problem(`${String(answer["problem"] ?? `status ${response.status}`)}.`);
  return answer;
}

interface Sent {
  tokens: [number, number][][];
  labels: Record<string, string | null>;
  l0: number[];
}

/** Return the latents of an image file, read by the models behind the latents of a folder's name. */
export async function liveLatents(latents: string, file: Blob, signal: AbortSignal, waiting: Waiting): Promise<LiveLatents> {
  const answer = await post("latents", { latents }, file, signal, waiting);
  const layers = Object.entries(answer["layers"] as Record<string, Sent>).map(([layer, sent]) => ({
    layer: Number(layer),
    tokens: sent.tokens.map((pairs, token) => pairs.map(([latent, value]) => ({ latent, value, token }))),
    l0: sent.l0,
    labels: new Map(Object.entries(sent.labels).map(([latent, label]) => [Number(latent), label])),
  }));
  return {
    width: answer["width"] as number,
    height: answer["height"] as number,
    placing: answer["geometry"] as Placing,
    layers: layers.sort((a, b) => a.layer - b.layer),
  };
}

/** Return captions of an image of the run (its id) or of a file, unedited and with an edit. */
export async function liveCaptions(
  latents: string,
  image: string | Blob,
  question: string,
  edits: Edit[],
  signal: AbortSignal,
  waiting: Waiting,
): Promise<Captions> {
  const what = typeof image === "string" ? { image } : { data: await base64(image) };
  const asked = { latents, ...what, edits, ...(question ? { question } : {}) };
  return (await post("captions", {}, JSON.stringify(asked), signal, waiting)) as unknown as Captions;
}

async function base64(file: Blob): Promise<string> {
  const bytes = new Uint8Array(await file.arrayBuffer());
  let text = "";
  for (let start = 0; start < bytes.length; start += 0x8000) {
    text += String.fromCharCode(...bytes.subarray(start, start + 0x8000));
  }
  return btoa(text);
}
