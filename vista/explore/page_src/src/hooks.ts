/** Loading into components: the last value stays on screen until the next has come. */

import { useEffect, useRef, useState } from "preact/hooks";

export interface Loaded<T> {
  value: T | undefined;
  error: Error | undefined;
  /** Whether `value` is what the key asks for now. */
  fresh: boolean;
}

/** Run `load` when `key` changes, or `source`: what is loaded from, for loads of which there may be
 * more in a newer one. No key: nothing is loaded. */
export function useLoaded<T>(key: string | undefined, load: () => Promise<T>, source?: unknown): Loaded<T> {
  const [state, setState] = useState<{ key?: string | undefined; value?: T; error?: Error }>({});
  const wanted = useRef(key);
  wanted.current = key;
  useEffect(() => {
    if (key === undefined) return;
    const done = (result: { value?: T; error?: Error }) => {
      if (wanted.current === key) setState({ key, ...result });
    };
    Promise.resolve()
      .then(load)
      .then(
        (value) => done({ value }),
        (error: unknown) => done({ error: error instanceof Error ? error : new Error(String(error)) }),
      );
  }, [key, source]);
  const fresh = key !== undefined && state.key === key;
  return { value: state.value, error: fresh ? state.error : undefined, fresh: fresh && !state.error };
}

/** Return the width and height of an element in px. */
export function useSize<E extends Element>(): [{ current: E | null }, { width: number; height: number }] {
  const element = useRef<E>(null);
  const [size, setSize] = useState({ width: 0, height: 0 });
  useEffect(() => {
    if (!element.current) return;
    const observer = new ResizeObserver(([entry]) => {
      const { width, height } = entry!.contentRect;
      setSize({ width, height });
    });
    observer.observe(element.current);
    return () => observer.disconnect();
  }, []);
  return [element, size];
}

/** Return whether an element has been on screen. */
export function useSeen<E extends Element>(): [{ current: E | null }, boolean] {
  const element = useRef<E>(null);
  const [seen, setSeen] = useState(false);
  useEffect(() => {
    if (seen || !element.current) return;
    const observer = new IntersectionObserver((entries) => {
      if (entries.some((entry) => entry.isIntersecting)) setSeen(true);
    }, { rootMargin: "300px" });
    observer.observe(element.current);
    return () => observer.disconnect();
  }, [seen]);
  return [element, seen];
}

/** Return a value as it was when it last stood still for some time. */
export function useSettled<T>(value: T, ms: number): T {
  const [settled, setSettled] = useState(value);
  useEffect(() => {
    const timer = setTimeout(() => setSettled(value), ms);
    return () => clearTimeout(timer);
  }, [value, ms]);
  return settled;
}
