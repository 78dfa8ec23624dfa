/** The page follows a run that goes on: what is new is shown where it belongs, and said. */

import { useEffect, useRef, useState } from "preact/hooks";
import { Follower, newsBetween } from "../data/follow";
import { Session } from "../data/session";
import { count } from "../text";

const EVERY_MS = 10_000;

/** Return the session of the newest catalogue, and what became new meanwhile. */
export function useNewest(first: Session): { session: Session; said: string; close: () => void } {
  const [session, setSession] = useState(first);
  const [news, setNews] = useState({ added: 0, changed: 0 });
  const current = useRef(first);
  useEffect(() => {
    if (!first.catalogue.live) return;
    const follower = new Follower();
    let asking = false;
    const look = async () => {
      if (asking || document.visibilityState !== "visible") return;
      asking = true;
      try {
        const catalogue = await follower.next();
        const found = catalogue && newsBetween(current.current.catalogue, catalogue);
        // Of a report, what is reported changes, too.
        if (catalogue && found && (found.added || found.changed.length)) {
          setSession((current.current = current.current.after(catalogue, found.changed)));
          setNews((old) => ({ added: old.added + found.added, changed: old.changed + found.changed.length }));
        }
      } catch {
        // The server may be gone: whoever asks for something is told.
      } finally {
        asking = false;
      }
    };
    const timer = setInterval(look, EVERY_MS);
    window.addEventListener("focus", look);
    document.addEventListener("visibilitychange", look);
    return () => {
      clearInterval(timer);
      window.removeEventListener("focus", look);
      document.removeEventListener("visibilitychange", look);
    };
  }, [first]);
  return { session, said: sentence(news), close: () => setNews({ added: 0, changed: 0 }) };
}

function sentence({ added, changed }: { added: number; changed: number }): string {
  const verb = (n: number, one: string, more: string) => (n === 1 ? one : more);
  const parts = [
    added ? `${count(added, "artifact")} ${verb(added, "is", "are")} new` : "",
    changed ? `${count(changed, "artifact")} ${verb(changed, "was", "were")} made again or removed` : "",
  ].filter(Boolean);
  return parts.length ? `${parts.join("; ")}.` : "";
}

/** The note stands over the page, so that nothing moves; its element is always there, so that screen
 * readers say what it comes to hold. */
export function News({ said, onClose }: { said: string; onClose: () => void }) {
  return (
    <div class={`news ${said ? "" : "silent"}`}>
      <span role="status">{said}</span>
      {said && (
        <button type="button" class="link" aria-label="Close this note" onClick={onClose}>
          close
        </button>
      )}
    </div>
  );
}
