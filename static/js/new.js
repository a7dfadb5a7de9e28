// Sends a dropped or chosen folder or archive, without ignored files. Without JavaScript, the form sends the same
// fields.
const form = document.getElementById("upload");
const zone = document.getElementById("drop");
const statusLine = document.getElementById("drop-said");
const limits = form.dataset;
const IGNORED = new Set(limits.ignored.split(" "));

const parts = (path) => path.split("/").filter(Boolean);
const ignoredPart = (path) => parts(path).find((part) => IGNORED.has(part)) ?? "";
const isArchive = (file) => /\.(zip|tar|tgz|tar\.gz)$/i.test(file.name);
const bytes = (count) => `${(count / 1048576).toFixed(1)} MiB`;

function say(text, isError = false) {
  statusLine.textContent = text;
  statusLine.className = isError ? "note error" : "muted small";
}

// --- Dropped files ---------------------------------------------------------------------------------------------------

async function walk(entry, found, leftOut) {
  const path = entry.fullPath.replace(/^\//, "");
  const ignored = ignoredPart(path);
  if (ignored) {
    // A whole folder counts as one: reading it would take longer than everything else.
    leftOut[ignored] = (leftOut[ignored] ?? 0) + 1;
    return;
  }
  if (entry.isFile) {
    found.push({ path, file: await new Promise((resolve, reject) => entry.file(resolve, reject)) });
    return;
  }
  const reader = entry.createReader();
  for (;;) {
    // It returns a hundred entries at a time, and none at the end.
    const entries = await new Promise((resolve, reject) => reader.readEntries(resolve, reject));
    if (!entries.length) return;
    for (const child of entries) await walk(child, found, leftOut);
  }
}

async function dropped(transfer) {
  const entries = [...transfer.items].map((item) => item.webkitGetAsEntry?.()).filter(Boolean);
  const files = [...transfer.files];
  if (files.length === 1 && isArchive(files[0]) && !entries[0]?.isDirectory) {
    await send({ archive: files[0] });
    return;
  }
  say("Looking through the folder…");
  const found = [];
  const leftOut = {};
  for (const entry of entries) await walk(entry, found, leftOut);
  await send({ found, leftOut });
}

// --- Chosen files ----------------------------------------------------------------------------------------------------

function chosen() {
  const archive = form.elements.archive.files[0];
  if (archive) return { archive };
  const found = [];
  const leftOut = {};
  for (const file of form.elements.folder.files) {
    const path = file.webkitRelativePath || file.name;
    const ignored = ignoredPart(path);
    if (ignored) leftOut[ignored] = (leftOut[ignored] ?? 0) + 1;
    else found.push({ path, file });
  }
  return { found, leftOut };
}

// --- Sending ---------------------------------------------------------------------------------------------------------

function withoutOutputs(found, leftOut) {
  // The build makes a `dist` beside a package.json again.
  const projects = found.filter(({ path }) => parts(path).at(-1) === "package.json");
  const outputs = projects.map(({ path }) => `${path.slice(0, -"package.json".length)}dist/`);
  return found.filter(({ path }) => {
    const isOutput = outputs.some((folder) => path.startsWith(folder));
    if (isOutput) leftOut.dist = (leftOut.dist ?? 0) + 1;
    return !isOutput;
  });
}

function problemOf(found) {
  const total = found.reduce((sum, { file }) => sum + file.size, 0);
  const large = found.find(({ file }) => file.size > Number(limits.file));
  if (found.length > Number(limits.files)) return `${found.length} files, more than the ${limits.files} allowed: leave some out.`;
  if (large) return `${large.path} has ${bytes(large.file.size)}, more than the ${bytes(limits.file)} allowed: make it smaller or leave it out.`;
  if (total > Number(limits.bytes)) return `The files have ${bytes(total)} in all, more than the ${bytes(limits.bytes)} allowed: leave some out.`;
  return "";
}

async function send({ archive, found = [], leftOut = {} }) {
  const body = new FormData();
  for (const name of ["csrfmiddlewaretoken", "way", "name"]) if (form.elements[name]) body.append(name, form.elements[name].value);
  if (archive) {
    body.append("archive", archive, archive.name);
  } else {
    const kept = withoutOutputs(found, leftOut);
    const problem = problemOf(kept);
    if (problem) return say(problem, true);
    for (const { path, file } of kept) body.append("folder", file, path);
    body.append("left_out", JSON.stringify(leftOut));
  }
  say(archive ? `Sending ${archive.name}…` : `Sending ${found.length} files…`);
  try {
    const answer = await fetch(form.action, { method: "POST", body });
    if (answer.redirected) return location.assign(answer.url);
    show(await answer.text());
  } catch {
    say("The files could not be sent: the server does not answer, or a file has changed meanwhile. Try again.", true);
  }
}

// Shows the reasons of a refusal, and keeps the chosen files.
function show(page) {
  const answer = new DOMParser().parseFromString(page, "text/html");
  const errors = [...answer.querySelectorAll("#faults li")].map((item) => item.textContent.trim());
  say(errors.join(" ") || answer.querySelector("main")?.textContent.trim() || "The files were refused.", true);
}

form.addEventListener("submit", (event) => {
  event.preventDefault();
  const files = chosen();
  if (!files.archive && !files.found.length && !Object.keys(files.leftOut).length) {
    say("Choose a folder or an archive first, or drop one here.", true);
    return;
  }
  send(files);
});

for (const name of ["dragenter", "dragover"]) {
  zone.addEventListener(name, (event) => {
    event.preventDefault();
    zone.classList.add("over");
  });
}
zone.addEventListener("dragleave", (event) => {
  if (!zone.contains(event.relatedTarget)) zone.classList.remove("over");
});
zone.addEventListener("drop", (event) => {
  event.preventDefault();
  zone.classList.remove("over");
  dropped(event.dataTransfer).catch(() => say("The folder could not be read: choose it with the button instead.", true));
});
zone.querySelector("[data-hint]").hidden = false;

// --- Pasted files ----------------------------------------------------------------------------------------------------

document.querySelector("#paste [name=more]").addEventListener("click", (event) => {
  event.preventDefault();
  const rows = document.querySelectorAll("#paste .pasted");
  const last = rows[rows.length - 1];
  const row = last.cloneNode(true);
  for (const field of row.querySelectorAll("input, textarea")) {
    field.value = "";
    field.id = `${field.name}-${rows.length}`;
    row.querySelector(`label[data-for=${field.name}]`).htmlFor = field.id;
  }
  last.after(row);
  row.querySelector("input").focus();
});
