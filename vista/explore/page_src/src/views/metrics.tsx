/** Metrics: the long table with filters, intervals as bars, chance beside; and the report's figures. */

import { useMemo, useState } from "preact/hooks";
import { hashOf, set } from "../address";
import type { Parts } from "../address";
import { address as addressOf } from "../data/http";
import { KEYS, keyText, loadFigures, loadPictures } from "../data/figures";
import type { Figure, Key } from "../data/figures";
import { scaleOf } from "../data/scale";
import type { Scale } from "../data/scale";
import type { Session } from "../data/session";
import { visionSaes } from "../data/vision";
import { useLoaded, useSize } from "../hooks";
import { number } from "../text";
import { Empty, Notice, Waiting } from "./notice";

const NAMES: Record<Key, string> = {
  metric: "metric",
  of: "of",
  set: "set",
  k: "k",
  encoder: "encoder",
  llm: "LLM",
  sae_weight: "weight",
  seed: "seed",
  control: "control",
  method: "method",
  layer: "layer",
  token_kind: "tokens",
};
const HEIGHT = 26;
const EXTRA = 10;

interface Props {
  session: Session;
  parts: Parts;
}

export function Metrics({ session, parts }: Props) {
  const table = useLoaded("figures", () => loadFigures(session), session);
  const shown = parts["show"] === "figures" ? "figures" : "table";
  if (table.error) return <Notice error={table.error} />;
  if (!table.value) return <Waiting what="the table" />;
  const { list, whole } = table.value;
  if (!list.length) return <Empty>No metric of this run is finished yet.</Empty>;
  return (
    <div class="metrics">
      <div class="tabs" role="group" aria-label="Table or figures">
        {(["table", "figures"] as const).map((name) => (
          <button type="button" key={name} aria-pressed={shown === name} onClick={() => set({ show: name === "table" ? undefined : name })}>
            {name === "table" ? "Table" : "Figures"}
          </button>
        ))}
        {!whole && <span class="muted">There is no report yet: these are the rows of the metrics that are finished.</span>}
      </div>
      {shown === "table" ? <LongTable session={session} list={list} parts={parts} /> : <Pictures session={session} />}
    </div>
  );
}

type Filters = Partial<Record<Key, string>>;

function filtersOf(parts: Parts): Filters {
  return Object.fromEntries(KEYS.flatMap((key) => (parts[`f_${key}`] === undefined ? [] : [[key, parts[`f_${key}`]]])));
}

function passes(figure: Figure, filters: Filters, but?: Key): boolean {
  return KEYS.every((key) => key === but || filters[key] === undefined || keyText(figure[key]) === filters[key]);
}

type Order = "" | "value" | "-value";

function LongTable({ session, list, parts }: Props & { list: Figure[] }) {
  const filters = filtersOf(parts);
  const order = (parts["order"] ?? "") as Order;
  const signature = JSON.stringify([filters, order]);
  const rows = useMemo(() => sorted(list.filter((figure) => passes(figure, filters)), order), [list, signature]);
  // Where all figures agree there is nothing to choose, and nothing to tell apart.
  const choices = useMemo(() => varying(list), [list]);
  const columns = useMemo(() => varying(rows.length ? rows : list), [rows]);
  const scales = useMemo(() => scalesOf(rows), [rows]);
  const [box, size] = useSize<HTMLDivElement>();
  const [top, setTop] = useState(0);
  const first = Math.max(0, Math.floor(top / HEIGHT) - EXTRA);
  const last = Math.min(rows.length, Math.ceil((top + Math.max(size.height, 400)) / HEIGHT) + EXTRA);
  const template = { "--keys": columns.map((key) => WIDTHS[key]).join(" ") };
  return (
    <>
      <div class="filters" role="group" aria-label="Filters">
        {choices.map((key) => (
          <Filter key={key} name={key} list={list} filters={filters} />
        ))}
        <button type="button" class="link" onClick={() => set(Object.fromEntries([...KEYS.map((key) => [`f_${key}`, undefined]), ["order", undefined]]))}>
          clear
        </button>
        <span class="muted" role="status">{rows.length.toLocaleString("en")} of {list.length.toLocaleString("en")} figures</span>
      </div>
      <div class="table" ref={box} role="table" aria-label="Figures" aria-rowcount={rows.length + 1} tabIndex={0} onScroll={(event) => setTop(event.currentTarget.scrollTop)}>
        <div class="tr head" role="row" aria-rowindex={1} style={template}>
          {columns.map((key) => (
            <span key={key} role="columnheader">{NAMES[key]}</span>
          ))}
          <span role="columnheader" class="right value" aria-sort={order === "value" ? "ascending" : order === "-value" ? "descending" : "none"}>
            <button type="button" onClick={() => set({ order: order === "-value" ? "value" : order === "value" ? undefined : "-value" })}>
              value{order === "value" ? " ↑" : order === "-value" ? " ↓" : ""}
            </button>
          </span>
          <span role="columnheader" class="drawn">interval, chance ┊</span>
          <span role="columnheader" class="right">chance</span>
          <span role="columnheader" class="right">n</span>
          <span role="columnheader" aria-label="images" />
        </div>
        <div class="table-length" role="rowgroup" style={{ height: `${rows.length * HEIGHT}px` }}>
          {rows.slice(first, last).map((figure, n) => (
            <div class="tr" role="row" aria-rowindex={first + n + 2} key={first + n} style={{ ...template, top: `${(first + n) * HEIGHT}px` }}>
              {columns.map((key) => (
                <span key={key} role="cell" class={figure[key] === null ? "muted" : ""} title={String(figure[key] ?? "")}>
                  {figure[key] === null || figure[key] === "" ? "·" : figure[key]}
                </span>
              ))}
              <span role="cell" class="right strong value">{number(figure.value)}</span>
              <span role="cell" class="drawn"><Interval figure={figure} scale={scales.get(figure.metric)!} /></span>
              <span role="cell" class="right muted">{figure.chance === null ? "·" : number(figure.chance)}</span>
              <span role="cell" class="right muted">{figure.n.toLocaleString("en")}</span>
              <span role="cell"><ImagesLink session={session} figure={figure} /></span>
            </div>
          ))}
        </div>
        {rows.length === 0 && <Empty>No figure passes these filters.</Empty>}
      </div>
    </>
  );
}

function varying(list: Figure[]): Key[] {
  return KEYS.filter((key) => list.some((figure) => keyText(figure[key]) !== keyText(list[0]![key])));
}

const WIDTHS: Record<Key, string> = {
  metric: "minmax(150px, 16rem)",
  of: "minmax(80px, 10rem)",
  set: "7rem",
  k: "3rem",
  encoder: "7rem",
  llm: "6rem",
  sae_weight: "4.5rem",
  seed: "3.2rem",
  control: "minmax(70px, 10rem)",
  method: "minmax(70px, 9rem)",
  layer: "3.5rem",
  token_kind: "5rem",
};

function sorted(rows: Figure[], order: Order): Figure[] {
  if (order === "") return rows;
  const sign = order === "value" ? 1 : -1;
  const rank = (figure: Figure) => (figure.value === null ? Infinity : sign * figure.value);
  return [...rows].sort((a, b) => rank(a) - rank(b));
}

function Filter({ name, list, filters }: { name: Key; list: Figure[]; filters: Filters }) {
  const options = useMemo(() => {
    const values = new Map<string, number>();
    for (const figure of list) {
      if (!passes(figure, filters, name)) continue;
      const text = keyText(figure[name]);
      values.set(text, (values.get(text) ?? 0) + 1);
    }
    return [...values].sort(([a], [b]) => Number(b === "none") - Number(a === "none") || a.localeCompare(b, "en", { numeric: true }));
  }, [list, JSON.stringify(filters)]);
  const chosen = filters[name];
  const missing = chosen !== undefined && !options.some(([value]) => value === chosen);
  return (
    <label class={chosen === undefined ? "" : "on"}>
      <span>{NAMES[name]}</span>
      <select value={chosen ?? ""} onChange={(event) => set({ [`f_${name}`]: event.currentTarget.value || undefined })}>
        <option value="">all</option>
        {missing && <option value={chosen}>{chosen} (0)</option>}
        {options.map(([value, n]) => (
          <option key={value} value={value}>{value} ({n.toLocaleString("en")})</option>
        ))}
      </select>
    </label>
  );
}

/** Figures of one metric share a scale, so that their bars compare. */
function scalesOf(rows: Figure[]): Map<string, Scale> {
  const byMetric = new Map<string, Figure[]>();
  for (const figure of rows) byMetric.set(figure.metric, [...(byMetric.get(figure.metric) ?? []), figure]);
  return new Map([...byMetric].map(([metric, figures]) => [metric, scaleOf(figures)]));
}

function Interval({ figure, scale: [low, high] }: { figure: Figure; scale: Scale }) {
  const { value, ci_low, ci_high, chance } = figure;
  if (value === null || high <= low) return <span class="interval" />;
  const share = (x: number) => (100 * (Math.min(Math.max(x, low), high) - low)) / (high - low);
  const at = (x: number) => `${share(x)}%`;
  const width = (from: number, to: number) => `${share(to) - share(from)}%`;
  const [less, more] = [Math.min(value, ci_low ?? value) < low, Math.max(value, ci_high ?? value) > high];
  // The number stands where the bar is cut off; an interval alone that is cut off has an arrow.
  const cut = value < low || value > high ? number(value) : "";
  const interval = ci_low === null && ci_high === null ? "no interval" : `interval ${number(ci_low)} to ${number(ci_high)}`;
  const name = `${number(value)}, ${interval}${chance === null ? "" : `, chance ${number(chance)}`}; scale ${number(low)} to ${number(high)}${less || more ? ", which it exceeds" : ""}`;
  return (
    <span class="interval" role="img" aria-label={name} title={name}>
      <span class="fill" style={{ left: at(Math.min(0, value)), width: width(Math.min(0, value), Math.max(0, value)) }} />
      {(ci_low !== null || ci_high !== null) && (
        <span class="ci" style={{ left: at(ci_low ?? low), width: width(ci_low ?? low, ci_high ?? high) }} />
      )}
      {less && <span class="beyond low">◂ {value < low && cut}</span>}
      {more && <span class="beyond high">{value > high && cut} ▸</span>}
      {chance !== null && <span class="chance" style={{ left: at(chance) }} />}
    </span>
  );
}

/** To the latents of the figure's vision SAE, or to the images of its point, where the run has them. */
function ImagesLink({ session, figure }: { session: Session; figure: Figure }) {
  const point = session.catalogue.points.find(
    ({ entry }) =>
      figure.encoder !== null &&
      entry.encoder === figure.encoder &&
      entry.llm === figure.llm &&
      entry.sae_weight === figure.sae_weight &&
      entry.seed === figure.seed &&
      (entry.control ?? null) === figure.control,
  );
  const saes = figure.method === null ? [] : visionSaes(session.catalogue);
  const sae = saes.find(({ entry }) => entry.encoder === figure.encoder && entry.method === figure.method);
  if (sae) {
    const title = `latents of the vision SAE ${sae.title}`;
    return <a href={hashOf({ view: "vision", parts: { sae: sae.key } })} title={title} aria-label={title}>›</a>;
  }
  if (!point) return null;
  const layer: Record<string, string> = figure.layer === null || Number(figure.layer) < 0 ? {} : { layer: String(figure.layer) };
  return (
    <a href={hashOf({ view: "images", parts: { a: point.key, ...layer } })} title={`images at ${point.title}`} aria-label={`images at ${point.title}`}>
      ›
    </a>
  );
}

function Pictures({ session }: { session: Session }) {
  const { report } = session.catalogue;
  const pictures = useLoaded(report ? `pictures ${report}` : undefined, () => loadPictures(report!));
  if (report === null) return <Empty>There is no report yet, and so no figures.</Empty>;
  if (pictures.error) return <Notice error={pictures.error} />;
  if (!pictures.value) return <Waiting what="the figures" />;
  if (!pictures.value.length) return <Empty>The report has no figures.</Empty>;
  return (
    <div class="pictures">
      {pictures.value.map(({ title, path }) => (
        <figure key={path}>
          <figcaption>{title}</figcaption>
          <a href={addressOf(path)} target="_blank" rel="noreferrer"><img src={addressOf(path)} alt={title} loading="lazy" /></a>
        </figure>
      ))}
    </div>
  );
}
