/** The whole page: what is looked at, which points, and one view. */

import { useEffect, useRef, useState } from "preact/hooks";
import { address, go, hashOf, set, useAddress, VIEWS } from "../address";
import type { Parts, View } from "../address";
import { Catalogue } from "../data/catalogue";
import type { Point } from "../data/catalogue";
import { Session } from "../data/session";
import { unlabelledSaes, visionSaes } from "../data/vision";
import { useLoaded } from "../hooks";
import { Edits } from "./edits";
import { Images } from "./images";
import { Latents } from "./latent";
import { Live } from "./live";
import { Metrics } from "./metrics";
import { News, useNewest } from "./news";
import { Empty, Notice, Waiting } from "./notice";
import { Vision } from "./vision";

const NAMES: Record<View, string> = { images: "Images", latent: "Latents", vision: "Vision SAEs", metrics: "Metrics", edits: "Edits", live: "Live" };

export function App() {
  const session = useLoaded("catalogue", async () => new Session(await Catalogue.load()));
  if (session.error) return <Notice error={session.error} />;
  if (!session.value) return <Waiting what="the run" />;
  return <Run first={session.value} />;
}

function Run({ first }: { first: Session }) {
  const { view, parts } = useAddress();
  const { session, said, close } = useNewest(first);
  const { catalogue } = session;
  const points = usePoints(catalogue, parts);
  useEffect(() => {
    document.title = `${catalogue.run ?? "run"} · ${NAMES[view]} · VISTA`;
  }, [view]);
  const help = useRef<HTMLDialogElement>(null);
  useKeys(help);
  return (
    <>
      <header class="bar-top">
        <h1>
          {catalogue.run ?? "VISTA"}
        </h1>
        <nav aria-label="Views">
          {VIEWS.filter((name) => isShown(name, catalogue)).map((name) => (
            <a
              key={name}
              href={hashOf({ view: name, parts: kept(parts, name) })}
              {...(name === view ? { "aria-current": "page" as const } : {})}
              onClick={(event) => {
                event.preventDefault();
                go({ view: name, parts: kept(parts, name) }, true);
              }}
            >
              {NAMES[name]}
            </a>
          ))}
        </nav>
        {catalogue.points.length > 0 && (view === "images" || view === "latent" || view === "live") && <Points catalogue={catalogue} points={points} two={view === "images"} />}
        <button type="button" class="help" aria-label="Keys" title="Keys" onClick={() => help.current?.showModal()}>
          ?
        </button>
      </header>
      <Notes catalogue={catalogue} />
      <News said={said} onClose={close} />
      <main class={`view-${view}`} key={session.age}>
        {catalogue.entries.length === 0 ? (
          <Empty>
            This folder has no finished artifact yet. Run snakemake; {catalogue.live ? "what is finished appears here." : "then load this page again."}
          </Empty>
        ) : view === "images" ? (
          <Images session={session} parts={parts} points={points} />
        ) : view === "latent" ? (
          <Latents session={session} parts={parts} point={points[0]} />
        ) : view === "vision" ? (
          <Vision session={session} parts={parts} />
        ) : view === "metrics" ? (
          <Metrics session={session} parts={parts} />
        ) : view === "edits" ? (
          <Edits session={session} parts={parts} />
        ) : catalogue.live ? (
          <Live session={session} parts={parts} point={points[0]} />
        ) : (
          <Empty>Images can be read anew only where vista explore serves this page, beside the models.</Empty>
        )}
      </main>
      <Help dialog={help} />
    </>
  );
}

/** Views that a run has nothing for are reached by a link alone. */
function isShown(view: View, catalogue: Catalogue): boolean {
  if (view === "vision") return visionSaes(catalogue).length + unlabelledSaes(catalogue).length > 0;
  return view !== "live" || catalogue.live;
}

/** The points that the address names. Others are chosen once, and stay when more are finished. */
function usePoints(catalogue: Catalogue, parts: Parts): [Point | undefined, Point | undefined] {
  const chosen = useRef<{ a: string | undefined; beside: Map<string, string> }>({ a: undefined, beside: new Map() });
  const a = catalogue.point(parts["a"]) ?? catalogue.point(chosen.current.a) ?? catalogue.pair()[0];
  if (!a) return [undefined, undefined];
  const id = ({ entry }: Point) => entry.folder.split("/")[1]!;
  if (!catalogue.point(parts["a"])) chosen.current.a = id(a);
  if (parts["b"] === "none") return [a, undefined];
  const kept = chosen.current.beside;
  const b = catalogue.point(parts["b"]) ?? catalogue.point(kept.get(id(a))) ?? catalogue.beside(a);
  if (b && !catalogue.point(parts["b"])) kept.set(id(a), id(b));
  return [a, b?.key === a.key ? undefined : b];
}

/** Points, image and latent go along from view to view. */
function kept(parts: Parts, view: View): Parts {
  const names = ["a", "b", "image", "layer", "latent", "sae", "number", ...(view === "images" ? ["patch", "of"] : [])];
  return Object.fromEntries(Object.entries(parts).filter(([name]) => names.includes(name)));
}

function Points({ catalogue, points, two }: { catalogue: Catalogue; points: [Point | undefined, Point | undefined]; two: boolean }) {
  const sides = two ? (["a", "b"] as const) : (["a"] as const);
  return (
    <div class="points">
      {sides.map((side, n) => (
        <label key={side} class={`point ${side}`}>
          <span class="mark" aria-hidden="true" />
          <select
            aria-label={n === 0 ? "Point of the sweep" : "Point of the sweep beside it"}
            value={points[n]?.key ?? "none"}
            onChange={(event) => set({ [side]: event.currentTarget.value })}
          >
            {n === 1 && <option value="none">nothing beside</option>}
            {catalogue.points.map((point) => (
              <option key={point.key} value={point.key}>{point.title}</option>
            ))}
          </select>
        </label>
      ))}
    </div>
  );
}

function Notes({ catalogue }: { catalogue: Catalogue }) {
  const [closed, close] = useState(false);
  const notes = [...catalogue.notes];
  if (catalogue.report === null && catalogue.entries.length > 0) {
    notes.unshift("This run is not finished: there is no report yet. What is there is shown.");
  }
  if (closed || notes.length === 0) return null;
  return (
    <div class="notes" role="status">
      {notes.map((note) => (
        <p key={note}>{note}</p>
      ))}
      <button type="button" class="link" onClick={() => close(true)}>close</button>
    </div>
  );
}

const KEYS: [string, string][] = [
  ["j, k", "next, previous image, or latent of a vision SAE"],
  ["↑ ↓ Page Home End", "in the list: images, latents"],
  ["← → ↑ ↓", "in the image: patches"],
  ["[ ]", "previous, next layer"],
  ["↑ ↓", "in a column: latents; Enter shows the heat map"],
  ["Escape", "lets go of the latent, then of the patch"],
  ["/", "filter or search"],
  ["1 2 3 4 5 6", "views"],
];

function Help({ dialog }: { dialog: { current: HTMLDialogElement | null } }) {
  return (
    <dialog ref={dialog} class="keys" aria-label="Keys">
      <h2>Keys</h2>
      <dl>
        {KEYS.map(([key, what]) => (
          <>
            <dt>{key}</dt>
            <dd>{what}</dd>
          </>
        ))}
      </dl>
      <form method="dialog">
        <button type="submit">Close</button>
      </form>
    </dialog>
  );
}

function useKeys(help: { current: HTMLDialogElement | null }): void {
  useEffect(() => {
    const press = (event: KeyboardEvent) => {
      const target = event.target as HTMLElement;
      if (event.ctrlKey || event.metaKey || event.altKey || target.closest("input, select, textarea, dialog")) return;
      if (shortcut(event.key, help)) event.preventDefault();
    };
    document.addEventListener("keydown", press);
    return () => document.removeEventListener("keydown", press);
  }, []);
}

function shortcut(key: string, help: { current: HTMLDialogElement | null }): boolean {
  const { parts } = address();
  const view = VIEWS[Number(key) - 1];
  if (view) go({ view, parts: kept(parts, view) }, true);
  else if (key === "/") document.getElementById("filter")?.focus();
  else if (key === "?") help.current?.showModal();
  else if (key === "Escape" && parts["latent"] !== undefined) set({ latent: undefined, of: undefined });
  else if (key === "Escape" && parts["patch"] !== undefined) set({ patch: undefined });
  else if (key === "j" || key === "k") stepTo(".list-body", key === "j" ? "ArrowDown" : "ArrowUp");
  else if (key === "[" || key === "]") stepTo(".jump", key === "]" ? "ArrowRight" : "ArrowLeft");
  else return false;
  return true;
}

/** A key from anywhere does what an arrow does in its own part of the page. */
function stepTo(part: string, key: string): void {
  document.querySelector(part)?.dispatchEvent(new KeyboardEvent("keydown", { key, bubbles: false }));
}
