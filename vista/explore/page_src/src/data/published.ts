/** The page of a latent at Neuronpedia. */

const ID = /^[A-Za-z0-9][A-Za-z0-9_.-]{0,99}\/[A-Za-z0-9][A-Za-z0-9_.-]{0,99}$/;

/** Return the address of a latent's page; undefined where "MODEL/SOURCE" is none. */
export function neuronpediaPage(published: string | undefined, latent: number): string | undefined {
  if (published === undefined || !ID.test(published) || !Number.isSafeInteger(latent)) return undefined;
  return `https://www.neuronpedia.org/${published}/${latent}`;
}
