/** The images of a run that has no latents yet. */

import { set } from "../address";
import type { Parts } from "../address";
import type { Records } from "../data/records";
import type { Session } from "../data/session";
import { useLoaded } from "../hooks";
import { About } from "./about";
import { ImageList } from "./list";
import { Empty, Notice, Waiting } from "./notice";

export function BareImages({ session, parts }: { session: Session; parts: Parts }) {
  const tables = session.catalogue.of("records");
  const entry = tables.find(({ folder }) => folder === parts["records"]) ?? tables[0];
  const records = useLoaded(entry?.folder, () => session.recordsIn(entry!.folder));
  if (!entry) return <Empty>This run has no latents yet, and no records of images.</Empty>;
  if (records.error) return <Notice error={records.error} />;
  if (!records.value) return <Waiting what="the images" />;
  const ids = records.value.ids();
  const id = parts["image"] ?? ids[0];
  return (
    <div class="images bare">
      <ImageList ids={ids} records={records.value} chosen={id} onChoose={(image) => set({ image })} firing={undefined} />
      <section class="middle" aria-label={`Image ${id}`}>
        <Empty>This run has no latents yet: its images alone are shown.</Empty>
        {tables.length > 1 && (
          <label>
            images of{" "}
            <select value={entry.folder} onChange={(event) => set({ records: event.currentTarget.value, image: undefined })}>
              {tables.map(({ folder }) => (
                <option key={folder}>{folder}</option>
              ))}
            </select>
          </label>
        )}
        <BareImage records={records.value} id={id} />
      </section>
    </div>
  );
}

function BareImage({ records, id }: { records: Records; id: string | undefined }) {
  const row = id === undefined ? undefined : records.row(id);
  const record = useLoaded(row === undefined ? undefined : `${records.folder} ${row}`, () => records.record(row!));
  if (row === undefined) return <Empty>These records have no image {id}. Choose one of the list.</Empty>;
  if (record.error) return <Notice error={record.error} />;
  return (
    <>
      <img class={`whole ${record.value && record.value.width < 128 ? "coarse" : ""}`} src={records.image(row, "images")} alt={`Image ${id}`} />
      {record.value && <About record={record.value} />}
    </>
  );
}
