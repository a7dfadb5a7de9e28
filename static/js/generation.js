// Keeps the page of a generation as it is: its part is fetched anew when an event says that there is something new,
// and once in a while for what no event tells, such as its builds. Nothing is open while nobody looks.
const EVERY = 2000;
const EVERY_BESIDE_A_STREAM = 5000; // for what no event tells, such as tokens
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
for (const fault of ["htmx:sendError", "htmx:responseError"]) document.addEventListener(fault, () => plan(2 * EVERY));
addEventListener("pagehide", close);
addEventListener("pageshow", (event) => event.persisted && refresh());
follow();
