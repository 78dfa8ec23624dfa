/** How strongly a latent fires where it does, as bars. */

import type { Bins } from "../data/latents";
import { count, number } from "../text";

const [WIDTH, HEIGHT] = [320, 90];

export function Histogram({ bins }: { bins: Bins | undefined }) {
  if (!bins) return <div class="histogram quiet">loading …</div>;
  const { counts, most } = bins;
  const total = counts.reduce((sum, n) => sum + n, 0);
  if (!total) return <div class="histogram quiet">It fires nowhere in these images.</div>;
  const highest = Math.max(...counts);
  const width = WIDTH / counts.length;
  const edge = (bin: number) => number((most * bin) / counts.length);
  return (
    <figure class="histogram">
      <svg
        viewBox={`0 0 ${WIDTH} ${HEIGHT}`}
        preserveAspectRatio="none"
        role="img"
        aria-label={`Histogram of ${count(total, "activation")} from 0 to ${number(most)}`}
      >
        {counts.map((n, bin) => {
          // The smallest count is still seen.
          const height = n ? Math.max(1.5, (HEIGHT * n) / highest) : 0;
          return (
            <rect key={bin} x={bin * width + 0.5} y={HEIGHT - height} width={width - 1} height={height}>
              <title>{`${edge(bin)} to ${edge(bin + 1)}: ${n}`}</title>
            </rect>
          );
        })}
      </svg>
      <figcaption>
        <span>0</span>
        <span>{count(total, "activation")}</span>
        <span>{number(most)}</span>
      </figcaption>
    </figure>
  );
}
