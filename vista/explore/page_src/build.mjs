// Build the page: `npm run build [FOLDER]`; the same bytes on every machine.
// `npm run build -- --node FILE` builds the data layer alone, for tests in Node.
import { build } from "esbuild";
import { mkdir, readdir, readFile, writeFile } from "node:fs/promises";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";

const here = dirname(fileURLToPath(import.meta.url));

// zarrita loads WebAssembly codecs by name; the stores need none of them.
const withoutWasm = {
  name: "without-wasm",
  setup(builder) {
    builder.onResolve({ filter: /^numcodecs\// }, ({ path }) => ({ path, namespace: "none" }));
    builder.onLoad({ filter: /.*/, namespace: "none" }, () => ({ contents: "export default undefined" }));
  },
};

const common = {
  absWorkingDir: here,
  bundle: true,
  format: "esm",
  target: "es2022",
  jsx: "automatic",
  jsxImportSource: "preact",
  charset: "utf8",
  legalComments: "none",
  metafile: true,
  write: false,
  plugins: [withoutWasm],
};

async function licences(inputs) {
  const names = new Set();
  for (const path of Object.keys(inputs)) {
    const found = /node_modules\/((?:@[^/]+\/)?[^/]+)\//.exec(path);
    if (found) names.add(found[1]);
  }
  const texts = [];
  for (const name of [...names].sort()) {
    const folder = join(here, "node_modules", name);
    const { version, license } = JSON.parse(await readFile(join(folder, "package.json"), "utf8"));
    const file = (await readdir(folder)).find((entry) => /^licen[cs]e(\.|$)/i.test(entry));
    const text = file ? (await readFile(join(folder, file), "utf8")).replaceAll("\r\n", "\n").trim() : "";
    texts.push(`${name} ${version} (${license})\n\n${text}\n`);
  }
  return texts.join(`\n${"-".repeat(79)}\n\n`);
}

async function page(folder) {
  const script = await build({ ...common, entryPoints: ["src/main.tsx"], minify: true, platform: "browser" });
  const style = await build({ ...common, entryPoints: ["src/app.css"], minify: true });
  await mkdir(folder, { recursive: true });
  await writeFile(join(folder, "app.js"), script.outputFiles[0].contents);
  await writeFile(join(folder, "app.css"), style.outputFiles[0].contents);
  for (const name of ["index.html", "icon.svg"]) {
    await writeFile(join(folder, name), await readFile(join(here, "src", name)));
  }
  await writeFile(join(folder, "licences.txt"), await licences(script.metafile.inputs));
}

async function node(file) {
  const made = await build({ ...common, entryPoints: ["src/data/index.ts"], platform: "browser" });
  await writeFile(file, made.outputFiles[0].contents);
}

const [first, second] = process.argv.slice(2);
if (first === "--node") await node(second);
else await page(first ?? join(here, "..", "page"));
