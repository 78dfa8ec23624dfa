/** Beside a latent: those with a like decoder row, and its page at Neuronpedia. */

import type { Entry } from "../data/catalogue";
import type { Labels } from "../data/labels";
import { loadNeighbours } from "../data/neighbours";
import { neuronpediaPage } from "../data/published";
import type { Session } from "../data/session";
import { useLoaded } from "../hooks";
import { number } from "../text";
import { Notice } from "./notice";

interface Props {
  session: Session;
  sae: Entry | undefined;
  latent: number;
  words: Labels | undefined;
  /** Return the address of another latent. */
  link: (latent: number) => string;
}

export function Neighbours({ session, sae, latent, words, link }: Props) {
  const found = useLoaded(sae && `neighbours ${sae.folder} ${latent}`, () => loadNeighbours(session, sae!, latent));
  if (found.error) return <Notice error={found.error} />;
  if (!found.fresh || !found.value?.length) return null;
  return (
    <section aria-label="Neighbours">
      <h3 title="cosine of decoder rows, of the same SAE">Neighbours</h3>
      <ol class="neighbours">
        {found.value.map(({ latent, cosine }) => {
          const label = words?.list[latent]?.text ?? null;
          return (
            <li key={latent}>
              <a href={link(latent)}>
                <span class={label === null ? "name unlabelled" : "name"}>{label ?? "unlabelled"}</span> <span class="muted">{latent}</span>
              </a>{" "}
              <span class="muted" title="cosine of decoder rows">{number(cosine)}</span>
            </li>
          );
        })}
      </ol>
    </section>
  );
}

/** A link is no request: nobody else is asked until somebody follows it. */
export function PublishedLink({ published, latent }: { published: string | undefined; latent: number }) {
  const page = neuronpediaPage(published, latent);
  if (page === undefined) return null;
  return (
    <>
      {" · "}
      <a href={page} target="_blank" rel="noopener noreferrer">at Neuronpedia</a>
    </>
  );
}
