/** A list of any length in which one item is chosen; what is seen of it is drawn. */

import type { ComponentChildren } from "preact";
import { useEffect, useState } from "preact/hooks";
import { useSize } from "../hooks";

const EXTRA = 6;

interface Props {
  name: string;
  /** What an item is; ids of elements start with it. */
  item: string;
  /** Of each item, px. */
  height: number;
  length: number;
  /** The place of the chosen item, -1 where the list does not have it. */
  place: number;
  onPlace: (place: number) => void;
  children: (place: number) => ComponentChildren;
}

export function Rows({ name, item, height, length, place, onPlace, children }: Props) {
  const [box, size] = useSize<HTMLDivElement>();
  const [top, setTop] = useState(0);
  const first = Math.max(0, Math.floor(top / height) - EXTRA);
  const last = Math.min(length, Math.ceil((top + size.height) / height) + EXTRA);

  // The chosen item stays in sight.
  useEffect(() => {
    const element = box.current;
    if (!element || place < 0 || size.height === 0) return;
    const at = place * height;
    if (at < element.scrollTop) element.scrollTop = at;
    else if (at + height > element.scrollTop + size.height) element.scrollTop = at + height - size.height;
  }, [place, size.height > 0, length]);

  const page = Math.max(1, Math.floor(size.height / height) - 1);
  const steps: Record<string, number> = {
    ArrowDown: place + 1,
    ArrowUp: place - 1,
    PageDown: place + page,
    PageUp: place - page,
    Home: 0,
    End: length - 1,
  };
  const move = (event: KeyboardEvent) => {
    const next = steps[event.key];
    if (next === undefined || !length) return;
    event.preventDefault();
    onPlace(Math.min(Math.max(next, 0), length - 1));
  };
  const shown = Array.from({ length: Math.max(0, last - first) }, (_, n) => first + n);
  return (
    <div
      class="list-body"
      ref={box}
      tabIndex={0}
      role="listbox"
      aria-label={name}
      {...(place >= first && place < last ? { "aria-activedescendant": `${item}-${place}` } : {})}
      onScroll={(event) => setTop(event.currentTarget.scrollTop)}
      onKeyDown={move}
    >
      <div class="list-length" style={{ height: `${length * height}px` }}>
        {shown.map((n) => (
          <div
            key={n}
            class={`item ${n === place ? "on" : ""}`}
            id={`${item}-${n}`}
            role="option"
            aria-selected={n === place}
            aria-setsize={length}
            aria-posinset={n + 1}
            style={{ top: `${n * height}px`, height: `${height}px` }}
            onClick={() => onPlace(n)}
          >
            {children(n)}
          </div>
        ))}
      </div>
    </div>
  );
}
