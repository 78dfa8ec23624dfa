/** An image large, with its patch grid, boxes and the heat map of a latent. */

import { useMemo } from "preact/hooks";
import { heat } from "../colour";
import { isSingle } from "../data/geometry";
import type { Geometry } from "../data/geometry";
import { classes } from "../data/records";
import type { ImageRecord } from "../data/records";
import { Masks } from "./masks";

interface Props {
  record: ImageRecord;
  image: string;
  geometry: Geometry;
  /** The token under the pointer, and the one that was chosen. */
  hovered: number | undefined;
  chosen: number | undefined;
  /** Activations by token, and the strongest of them; undefined: no heat map. */
  map: ArrayLike<number> | undefined;
  most: number;
  grid: boolean;
  boxes: boolean;
  masks?: boolean;
  /** Tokens that are marked, where several are; a click, Enter or space then marks one. */
  marked?: ReadonlySet<number>;
  onMark?: (token: number) => void;
  onHover: (token: number | undefined) => void;
  onChoose: (token: number | undefined) => void;
}

type Pointed = MouseEvent & { currentTarget: SVGSVGElement };

const STEPS: Record<string, [number, number]> = {
  ArrowUp: [-1, 0],
  ArrowDown: [1, 0],
  ArrowLeft: [0, -1],
  ArrowRight: [0, 1],
};

/** Return the patch as a person counts it: row and column from 0. */
export function patchName(geometry: Geometry, token: number): string {
  return `${Math.floor(token / geometry.columns)},${token % geometry.columns}`;
}

export function Stage(props: Props) {
  const { record, geometry, hovered, chosen, onHover, onChoose } = props;
  const { extent } = geometry;
  // A token that stands for the whole image leaves nothing to choose.
  const single = isSingle(geometry);
  const at = (event: Pointed) => {
    const box = event.currentTarget.getBoundingClientRect();
    // The drawing fills the element as far as its shape allows, and is centred.
    const scale = Math.min(box.width / extent.width, box.height / extent.height);
    const [left, top] = [
      box.left + (box.width - extent.width * scale) / 2,
      box.top + (box.height - extent.height * scale) / 2,
    ];
    return geometry.at((event.clientX - left) / scale + extent.x, (event.clientY - top) / scale + extent.y);
  };
  const move = (event: KeyboardEvent) => {
    const step = STEPS[event.key];
    if (props.onMark && chosen !== undefined && (event.key === "Enter" || event.key === " ")) {
      event.preventDefault();
      props.onMark(chosen);
    }
    if (event.key === "Escape" && chosen !== undefined) {
      event.stopPropagation();
      onChoose(undefined);
    }
    if (!step) return;
    event.preventDefault();
    event.stopPropagation();
    const from = chosen ?? Math.floor(geometry.rows / 2) * geometry.columns + Math.floor(geometry.columns / 2);
    if (chosen === undefined) return onChoose(from);
    const row = clamp(Math.floor(from / geometry.columns) + step[0], geometry.rows);
    const column = clamp((from % geometry.columns) + step[1], geometry.columns);
    onHover(undefined);
    onChoose(row * geometry.columns + column);
  };
  const shown = classes(record).join(", ");
  const name = `Image ${record.id}${shown ? `, shows ${shown}` : ""}. ${single ? "It has one token." : `Grid of ${geometry.rows} rows and ${geometry.columns} columns; arrow keys move the patch.`}`;
  return (
    <svg
      class="stage"
      viewBox={`${extent.x} ${extent.y} ${extent.width} ${extent.height}`}
      aria-label={name}
      {...(single
        ? { role: "img" }
        : {
            tabindex: 0,
            role: "application",
            "aria-roledescription": "patch grid",
            onMouseMove: (event: Pointed) => onHover(at(event)),
            onMouseLeave: () => onHover(undefined),
            onClick: (event: Pointed) => {
              const token = at(event);
              if (props.onMark && token !== undefined) props.onMark(token);
              else onChoose(token === chosen ? undefined : token);
            },
            onKeyDown: move,
          })}
    >
      <Padding geometry={geometry} />
      <image
        class={record.width < 128 ? "coarse" : ""}
        href={props.image}
        x={geometry.image.x}
        y={geometry.image.y}
        width={geometry.image.width}
        height={geometry.image.height}
        preserveAspectRatio="none"
      />
      <Outside geometry={geometry} />
      {props.masks && <Masks geometry={geometry} record={record} />}
      {props.map && <Heat geometry={geometry} map={props.map} most={props.most} />}
      {props.grid && <Grid geometry={geometry} />}
      {props.boxes && <Boxes geometry={geometry} record={record} />}
      {[...(props.marked ?? [])].map((token) => (
        <Patch key={token} geometry={geometry} token={token} kind="marked" />
      ))}
      {chosen !== undefined && <Patch geometry={geometry} token={chosen} kind="chosen" />}
      {hovered !== undefined && hovered !== chosen && (
        <Patch geometry={geometry} token={hovered} kind="hovered" />
      )}
    </svg>
  );
}

function clamp(value: number, size: number): number {
  return Math.min(Math.max(value, 0), size - 1);
}

/** The model's input behind the image: what the image does not cover is padding. */
function Padding({ geometry }: { geometry: Geometry }) {
  const step = geometry.size / 40;
  return (
    <>
      <pattern id="padding" width={step} height={step} patternUnits="userSpaceOnUse" patternTransform="rotate(45)">
        <rect class="padding-ground" width={step} height={step} />
        <rect class="padding-line" width={step / 4} height={step} />
      </pattern>
      <rect width={geometry.size} height={geometry.size} fill="url(#padding)">
        <title>padding</title>
      </rect>
    </>
  );
}

/** What of the image the model does not see is dimmed. */
function Outside({ geometry }: { geometry: Geometry }) {
  const { x, y, width, height } = geometry.extent;
  const seen = geometry.side * geometry.step;
  if (x === 0 && y === 0 && width === seen && height === seen) return null;
  const path = `M${x} ${y}h${width}v${height}h${-width}zM0 0v${seen}h${seen}v${-seen}z`;
  return <path class="outside" d={path} fill-rule="evenodd" />;
}

function Grid({ geometry }: { geometry: Geometry }) {
  const path = useMemo(() => {
    const end = geometry.side * geometry.step;
    const across = geometry.step / geometry.perPatch;
    const rows = Array.from({ length: geometry.rows + 1 }, (_, n) => `M0 ${n * geometry.step}H${end}`);
    const columns = Array.from({ length: geometry.columns + 1 }, (_, n) => `M${n * across} 0V${end}`);
    return rows.concat(columns).join("");
  }, [geometry]);
  return (
    <>
      <path class="grid-shadow" d={path} />
      <path class="grid-line" d={path} />
    </>
  );
}

export function Heat({ geometry, map, most }: { geometry: Geometry; map: ArrayLike<number>; most: number }) {
  if (isSingle(geometry)) {
    // A colour over the whole image would hide it.
    return map[0] ? <rect class="heat-frame" {...geometry.token(0)} stroke={heat(map[0] / most)} /> : null;
  }
  const cells = [];
  for (let token = 0; token < map.length; token++) {
    if (!map[token]) continue;
    const share = map[token]! / most;
    cells.push(<rect key={token} {...geometry.token(token)} fill={heat(share)} fill-opacity={0.45 + 0.4 * share} />);
  }
  return <g class="heat">{cells}</g>;
}

function Boxes({ geometry, record }: { geometry: Geometry; record: ImageRecord }) {
  const size = geometry.extent.width / 34;
  return (
    <g class="boxes">
      {record.objects.map((item, n) => {
        const box = geometry.fromImage(item, record.width, record.height);
        return (
          <g key={n}>
            <rect class="box" {...box} />
            <text class="box-name" x={box.x + size / 3} y={Math.max(box.y, geometry.extent.y) + size} font-size={size}>
              {item.category}
            </text>
          </g>
        );
      })}
    </g>
  );
}

function Patch({ geometry, token, kind }: { geometry: Geometry; token: number; kind: string }) {
  const box = geometry.token(token);
  return (
    <>
      <rect class={`patch-shadow ${kind}`} {...box} />
      <rect class={`patch ${kind}`} {...box} />
    </>
  );
}
