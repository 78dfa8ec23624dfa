/** What the page shows, kept in the address's hash, so that a link restores it. */

import { useEffect, useState } from "preact/hooks";

export type View = "images" | "latent" | "vision" | "metrics" | "edits" | "live";
export const VIEWS: readonly View[] = ["images", "latent", "vision", "metrics", "edits", "live"];

/** All parts are text; which of them a view uses is its own matter. */
export type Parts = Readonly<Record<string, string>>;

export interface Address {
  view: View;
  parts: Parts;
}

export function parse(hash: string): Address {
  const [view, query] = hash.replace(/^#/, "").split("?", 2);
  const known = VIEWS.find((name) => name === view);
  return { view: known ?? "images", parts: Object.fromEntries(new URLSearchParams(query ?? "")) };
}

export function hashOf({ view, parts }: Address): string {
  const query = new URLSearchParams(Object.entries(parts).filter(([, value]) => value !== ""));
  return `#${view}${query.size ? `?${query}` : ""}`.replaceAll("%2C", ",");
}

/** Return parts with some changed; undefined takes one away. */
export function changed(parts: Parts, change: Record<string, string | number | undefined>): Parts {
  const next: Record<string, string> = { ...parts };
  for (const [name, value] of Object.entries(change)) {
    if (value === undefined) delete next[name];
    else next[name] = String(value);
  }
  return next;
}

const listeners = new Set<(address: Address) => void>();
let current: Address | undefined;

export function address(): Address {
  return (current ??= parse(location.hash));
}

/** Show something else. A step of its own in the browser's history if `keep`. */
export function go(next: Address, keep = false): void {
  if (hashOf(next) === hashOf(address())) return;
  current = next;
  if (keep) history.pushState(null, "", hashOf(next));
  else history.replaceState(null, "", hashOf(next));
  listeners.forEach((listen) => listen(next));
}

/** Change parts of what is shown. */
export function set(change: Record<string, string | number | undefined>, keep = false): void {
  go({ view: address().view, parts: changed(address().parts, change) }, keep);
}

function follow(): void {
  current = parse(location.hash);
  listeners.forEach((listen) => listen(current!));
}

export function useAddress(): Address {
  const [shown, show] = useState(address);
  useEffect(() => {
    listeners.add(show);
    if (listeners.size === 1) {
      window.addEventListener("hashchange", follow);
      window.addEventListener("popstate", follow);
    }
    show(address());
    return () => void listeners.delete(show);
  }, []);
  return shown;
}

/** Return a whole number of an address's part, undefined if it is none. */
export function whole(text: string | undefined): number | undefined {
  return text !== undefined && /^\d+$/.test(text) ? Number(text) : undefined;
}
