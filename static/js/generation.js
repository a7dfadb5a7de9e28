// Keeps a generation's page up to date: reloads its part after each event, and regularly for changes without an event,
// such as builds. A hidden page has no open stream.
const EVERY = 2000;
const EVERY_BESIDE_A_STREAM = 5000; // for changes without an event, such as tokens
const SOON = 250;
const part = () => document.getElementById("generation");
let stream = null;
let timer = 0;
let said = "";
let open = [];

function refresh() {
  clearTimeout(timer);
  timer = 0;
  if (!document.hidden) htmx.trigger(part(), "refresh");
}

function plan(wait) {
  if (timer && wait >= EVERY) return;
  clearTimeout(timer);
  timer = setTimeout(refresh, wait);
}

function listen() {
  const address = part().dataset.events;
  if (!address || stream) return;
  stream = new EventSource(address);
  for (const kind of ["status", "stage", "file"]) stream.addEventListener(kind, () => plan(SOON));
  stream.addEventListener("end", () => {
    close();
    plan(SOON);
  });
}

function close() {
  stream?.close();
  stream = null;
}

function follow() {
  const { waits, events, says } = part().dataset;
  if (says !== said) document.getElementById("said").textContent = said = says;
  if (events === undefined) close();
  else listen();
  if (waits !== undefined) plan(stream ? EVERY_BESIDE_A_STREAM : EVERY);
}

document.addEventListener("visibilitychange", () => {
  if (document.hidden) close();
  else if (part().dataset.waits !== undefined) refresh();
});
document.addEventListener("htmx:beforeSwap", () => {
  open = [...part().querySelectorAll("details[open]")].map((each) => each.id);
});
document.addEventListener("htmx:afterSettle", () => {
  for (const id of open) document.getElementById(id)?.setAttribute("open", "");
  follow();
});
for (const error of ["htmx:sendError", "htmx:responseError"]) document.addEventListener(error, () => plan(2 * EVERY));
addEventListener("pagehide", close);
addEventListener("pageshow", (event) => event.persisted && refresh());
follow();
