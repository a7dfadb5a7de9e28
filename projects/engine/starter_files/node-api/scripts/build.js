// Puts all that is needed to run into dist/: start it there with `npm start`.
import { cp, mkdir, readFile, rm, writeFile } from "node:fs/promises";

const root = new URL("../", import.meta.url);
const dist = new URL("dist/", root);

await rm(dist, { recursive: true, force: true });
await mkdir(dist);
await cp(new URL("src/", root), new URL("src/", dist), { recursive: true });

const { name, version, description, type, engines, scripts } = JSON.parse(
  await readFile(new URL("package.json", root), "utf8"),
);
const manifest = { name, private: true, version, description, type, engines, scripts: { start: scripts.start } };
await writeFile(new URL("package.json", dist), `${JSON.stringify(manifest, null, 2)}\n`);
