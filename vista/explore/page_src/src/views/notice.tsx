/** Sentences for what is missing, broken or still loading. */

import type { ComponentChildren } from "preact";

export function Notice({ error }: { error: Error }) {
  return (
    <p class="notice" role="alert">
      {error.message}
    </p>
  );
}

export function Empty({ children }: { children: ComponentChildren }) {
  return <p class="empty">{children}</p>;
}

export function Waiting({ what }: { what: string }) {
  return (
    <p class="waiting" role="status">
      Loading {what} …
    </p>
  );
}
