// Reads a run with the page's data layer: node reads.mjs BUNDLE ADDRESS < TASKS > ANSWERS.
import { createHash } from "node:crypto";

const [bundle, address] = process.argv.slice(2);
const vista = await import(bundle);
vista.setBase(address);

const sum = (bytes) => createHash("sha256").update(bytes).digest("hex");
const list = (values) => Array.from(values);

async function latents(folder) {
  return vista.LatentStore.open(folder);
}

const tasks = {
  async arrays({ path }) {
    const store = await vista.Store.open(path, "vista ");
    const answers = {};
    for (const name of store.arrayNames()) {
      // Of slots in blocks those in use alone are read: the task "image".
      if (store.chunks(name)[2] < store.shape(name)[2]) continue;
      if (name.endsWith("/image/image") || name.endsWith("tokens/image/image")) {
        answers[name] = { texts: await store.texts(name) };
        continue;
      }
      const { data, shape } = await store.numbers(name);
      answers[name] = { shape, sum: sum(new Uint8Array(Float64Array.from(data).buffer)) };
    }
    return answers;
  },
  async table({ path, columns, start, stop }) {
    const table = await vista.Table.open(path);
    return { rows: await table.read(columns, start, stop), metadata: table.metadata, columns: table.columns };
  },
  async where({ path, column, value }) {
    const table = await vista.Table.open(path);
    const fetched = globalThis.fetch;
    let bytes = 0;
    globalThis.fetch = async (...request) => {
      const response = await fetched(...request);
      bytes += Number(response.headers.get("Content-Length"));
      return response;
    };
    const rows = await table.where(column, value);
    globalThis.fetch = fetched;
    return { rows, bytes };
  },
  async image({ folder, layer, place, token, latent }) {
    const image = await (await latents(folder)).image(layer, place);
    return {
      active: image.active(token),
      strongest: image.strongest(),
      l0: image.l0(token),
      error: image.error(token),
      valid: image.isValid(token),
      map: list(image.map(latent)),
    };
  },
  async latent({ folder, layer, latent, place, tokens }) {
    const store = await latents(folder);
    const firings = await store.firings(layer, latent);
    const top = store.top(layer, latent);
    return {
      top: await top,
      maps: (await store.topMaps(layer, latent, top)).map(list),
      images: list(await store.firingImages(layer, latent)),
      count: await store.imageCount(layer, latent),
      firings: [list(firings.image), list(firings.token), list(firings.value)],
      share: await store.tokenShare(layer, latent),
      counts: list(await store.imageCounts(layer)),
      histogram: await store.histogram(layer, latent, top),
      map: list(vista.mapOf(firings, place, tokens)),
    };
  },
  async view({ folder, layer, latent }) {
    const store = await latents(folder);
    const top = store.top(layer, latent);
    const [maps] = await Promise.all([
      store.topMaps(layer, latent, top),
      store.histogram(layer, latent, top),
      store.tokenShare(layer, latent),
      store.imageCount(layer, latent),
    ]);
    return maps.length;
  },
  async contexts({ folder, latent }) {
    const labels = await vista.Labels.open(folder);
    return { contexts: await labels.contexts(latent), label: labels.list[latent], layer: labels.layer };
  },
  geometry({ width, height, placing }) {
    const geometry = new vista.Geometry(width, height, placing);
    const tokens = geometry.rows * geometry.columns;
    return {
      grid: [geometry.rows, geometry.columns],
      image: geometry.image,
      boxes: Array.from({ length: tokens }, (_, token) => geometry.token(token)),
      // The middle of each token lies in it.
      same: Array.from({ length: tokens }, (_, token) => geometry.same(token, geometry)),
    };
  },
  mask({ text, width, height }) {
    return { columns: vista.columnsOf(text, width, height), paths: vista.maskPaths(text, width, height) };
  },
  scale({ figures }) {
    return vista.scaleOf(figures);
  },
  published({ texts }) {
    return texts.map((text) => vista.neuronpediaPage(text, 7) ?? null);
  },
  async twoAtOnce({ folder, image, cookie }) {
    const fetched = globalThis.fetch;
    globalThis.fetch = (url, { headers, ...options }) =>
      fetched(url, { ...options, headers: { ...headers, Cookie: cookie, Origin: new URL(url).origin } });
    const ask = async () => {
      const told = [];
      const stop = new AbortController();
      await vista.liveCaptions(folder, image, "", [], stop.signal, (before) => told.push(before));
      return told;
    };
    const answers = await Promise.all([ask(), ask()]);
    globalThis.fetch = fetched;
    return answers;
  },
  crc({ bytes }) {
    return vista.crc32c(Uint8Array.from(bytes));
  },
  half() {
    return list(vista.fromHalf(Uint16Array.from({ length: 65536 }, (_, n) => n)), String).map(String);
  },
};

let text = "";
for await (const part of process.stdin) text += part;
const answers = [];
for (const { task, ...given } of JSON.parse(text)) {
  try {
    answers.push(await tasks[task](given));
  } catch (error) {
    answers.push({ problem: error.message, expected: error instanceof vista.Problem });
  }
}
// Connections that fetch keeps open would hold the process for seconds.
process.stdout.write(JSON.stringify(answers), () => process.exit());
