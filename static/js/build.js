// A build's page: the log, one live stream for it and for what changes beside it, and the tools above the log.
"use strict";

const MOST_FOUND = 10_000;
const AGAIN_SECONDS = 5; // until a stream that was refused is asked for again
const QUEUE_SECONDS = 3; // how often a waiting build's place in the queue is asked for

const byId = (id) => document.getElementById(id);
const isEnded = () => !["queued", "running"].includes(byId("state").dataset.status);

class BuildPage {
  constructor(section) {
    this.addresses = section.dataset;
    this.view = new LogView(byId("log-view"), { onPlace: () => this.showEnd() });
    this.cursor = "";
    this.event = section.dataset.event; // the page shows what has happened up to it
    this.attempt = -1;
    this.tools = new LogTools(this.view);
    document.addEventListener("visibilitychange", () => this.connect());
    window.addEventListener("pagehide", () => this.disconnect());
    window.addEventListener("pageshow", (event) => event.persisted && this.connect());
    byId("log-end").addEventListener("click", () => {
      this.view.toEnd();
      byId("log-view").focus({ preventScroll: true });
    });
    document.addEventListener("htmx:beforeSwap", (event) => {
      if (event.detail.xhr.responseURL.includes(this.addresses.state)) return;
      event.detail.shouldSwap = false; // it was led to where one signs in
      location.reload();
    });
    setInterval(() => this.tick(), 1000);
  }

  async begin() {
    await this.load();
    byId("log-plain").hidden = true;
    byId("log-frame").hidden = byId("log-tools").hidden = false;
    this.view.refresh();
    this.tools.begin();
    if (this.view.isFollowing) this.view.toEnd();
    document.documentElement.dataset.log = "ready";
    performance.mark("log-ready");
    this.connect();
  }

  // All that has been printed so far, piece by piece.
  async load() {
    for (let more = true; more;) {
      const answer = await fetch(`${this.addresses.log}?after=${this.cursor}`);
      if (!answer.ok) throw new Error(`the log answered ${answer.status}`);
      const page = await answer.json();
      if (page.attempt !== this.attempt) this.restart(page.attempt, page.line);
      let at = 0;
      for (const [length, phase, stream, time] of page.runs) {
        this.log.append(page.text.slice(at, (at += length)), phase, stream, time);
      }
      this.cursor = page.cursor;
      more = page.more;
    }
    this.showCount();
  }

  restart(attempt, line) {
    this.attempt = attempt;
    this.log = new LogText(line);
    this.view.show(this.log);
  }

  // --- Live ---

  connect() {
    if (document.hidden || isEnded()) {
      this.disconnect();
      return;
    }
    if (this.source) return;
    const source = (this.source = new EventSource(`${this.addresses.stream}?after=${this.cursor || "0.0"}-${this.event}`));
    source.addEventListener("log", (event) => this.take(JSON.parse(event.data)));
    for (const kind of ["status", "phase"]) source.addEventListener(kind, (event) => this.changed(JSON.parse(event.data)));
    source.addEventListener("end", () => {
      this.disconnect();
      this.update();
    });
    source.addEventListener("error", () => {
      if (source.readyState !== EventSource.CLOSED || this.source !== source) return; // it comes back by itself
      this.disconnect();
      setTimeout(() => this.connect(), AGAIN_SECONDS * 1000);
    });
  }

  disconnect() {
    this.source?.close();
    this.source = null;
  }

  take(entry) {
    const [attempt, sequence] = this.cursor.split(".").map(Number);
    if (entry.attempt === attempt && entry.sequence <= sequence) return; // of a piece that was sent twice
    if (entry.attempt !== this.attempt) this.restart(entry.attempt, 1);
    this.cursor = `${entry.attempt}.${entry.sequence}`;
    this.log.append(entry.text, entry.phase, entry.stream, Date.parse(entry.timestamp));
    this.view.grown();
    this.tools.grown();
    this.showCount();
  }

  changed(change) {
    if (change.phase) say(`Phase ${change.phase}.`);
    clearTimeout(this.updating);
    this.updating = setTimeout(() => this.update(), 60); // several come at once
  }

  // One after the other: htmx drops a request for an element that another one has replaced meanwhile.
  async update() {
    this.isStale = true;
    if (this.isUpdating) return;
    this.isUpdating = true;
    try {
      while (this.isStale) {
        this.isStale = false;
        await this.replaceState();
      }
    } catch {
      setTimeout(() => this.update(), AGAIN_SECONDS * 1000);
    } finally {
      this.isUpdating = false;
    }
  }

  async replaceState() {
    const before = byId("state").dataset.status;
    await htmx.ajax("GET", this.addresses.state, { target: "#state", swap: "outerHTML" });
    const { status, title } = byId("state").dataset;
    document.title = title;
    if (status !== before) say(`The build is ${status}. ${isEnded() ? byId("verdict-title")?.textContent ?? "" : ""}`);
    this.showEnd();
  }

  tick() {
    for (const node of document.querySelectorAll("[data-since]")) node.textContent = span(Date.now() / 1000 - Number(node.dataset.since));
    this.ticks = (this.ticks ?? 0) + 1;
    if (byId("state").dataset.status === "queued" && !document.hidden && !(this.ticks % QUEUE_SECONDS)) this.update();
  }

  // --- What is said beside the log ---

  showCount() {
    const last = this.log.count ? this.log.count + this.log.first - 1 : 0;
    const count = byId("log-count");
    count.textContent = `${last.toLocaleString("en")} line${last === 1 ? "" : "s"}`;
    if (this.log.first > 1) count.textContent += `; those before ${this.log.first.toLocaleString("en")} are in the raw text`;
  }

  showEnd() {
    byId("log-end").hidden = this.view.isFollowing || this.view.isAtEnd;
  }
}

// Search, times, copy, and lines by address.
class LogTools {
  constructor(view) {
    this.view = view;
    this.found = [];
    this.at = -1;
    this.search = byId("log-search");
    this.search.addEventListener("input", () => {
      clearTimeout(this.waiting);
      this.waiting = setTimeout(() => this.look(), 120);
    });
    this.search.addEventListener("keydown", (event) => this.onKey(event));
    byId("log-next").addEventListener("click", () => this.go(1));
    byId("log-previous").addEventListener("click", () => this.go(-1));
    byId("log-times").addEventListener("click", () => this.setTimes(!view.hasTimes));
    byId("log-wrap").addEventListener("click", () => this.setWrapping(!view.wraps));
    byId("log-copy").addEventListener("click", () => this.copy());
    byId("log-view").addEventListener("keydown", (event) => this.onViewKey(event));
    byId("log-view").addEventListener("click", (event) => this.onClick(event));
    document.addEventListener("click", (event) => {
      const link = event.target.closest?.("a[data-line]");
      if (!link || event.ctrlKey || event.metaKey || event.shiftKey) return;
      event.preventDefault();
      this.setAddress(`#L${link.dataset.line}`);
    });
    window.addEventListener("hashchange", () => this.toAddress());
  }

  begin() {
    this.setTimes(localStorage.getItem("chef-log-times") === "1");
    this.setWrapping((localStorage.getItem("chef-log-wrap") ?? (innerWidth < 640 ? "1" : "0")) === "1", { isKept: false });
    this.toAddress();
  }

  // --- Search ---

  look({ keepsPlace = false } = {}) {
    clearTimeout(this.waiting);
    const wanted = this.search.value;
    this.wanted = wanted;
    const line = /^:(\d{1,9})$/.exec(wanted);
    const isText = wanted !== "" && !wanted.startsWith(":");
    this.view.pattern = isText ? LogText.pattern(wanted) : null;
    this.found = isText ? this.view.log.find(wanted, MOST_FOUND) : [];
    if (!keepsPlace) {
      this.at = -1;
      this.view.current = -1;
      if (line) this.setAddress(`#L${line[1]}`);
      else if (this.found.length) this.go(1);
    }
    byId("log-next").disabled = byId("log-previous").disabled = !this.found.length;
    this.view.refresh();
    this.say();
  }

  go(step) {
    if (this.wanted !== this.search.value) {
      this.look();
      return;
    }
    if (!this.found.length) return;
    this.at = (this.at + step + this.found.length) % this.found.length;
    this.view.current = this.found[this.at];
    this.view.toLine(this.view.current);
    this.say();
  }

  say() {
    const most = this.found.length === MOST_FOUND ? "+" : "";
    const count = `${this.found.length.toLocaleString("en")}${most}`;
    if (!this.view.pattern) byId("log-found").textContent = "";
    else byId("log-found").textContent = this.found.length ? `${this.at + 1} of ${count}` : "none";
  }

  grown() {
    if (this.view.pattern && !this.isDue) {
      this.isDue = setTimeout(() => {
        this.isDue = 0;
        this.look({ keepsPlace: true });
      }, 1000);
    }
  }

  onKey(event) {
    if (event.key === "Enter") {
      event.preventDefault();
      this.go(event.shiftKey ? -1 : 1);
    } else if (event.key === "Escape") {
      this.search.value = "";
      this.look();
      byId("log-view").focus({ preventScroll: true });
    }
  }

  onViewKey(event) {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    if (event.key === "/") {
      event.preventDefault();
      this.search.focus();
    } else if (event.key === "Home" || event.key === "End") {
      event.preventDefault(); // at once: browsers would glide there, and be late when another key follows
      if (event.key === "End") this.view.toEnd();
      else this.view.toTop();
    } else if (event.key === "n" || event.key === "N") {
      this.go(event.key === "n" ? 1 : -1);
    } else if (event.key === "[" || event.key === "]") {
      this.foldAll(event.key === "[");
    }
  }

  foldAll(isFolded) {
    this.view.log.phases.forEach((_, place) => {
      if (this.view.folded.has(place) !== isFolded) this.view.fold(place);
    });
  }

  // --- Lines by address ---

  onClick(event) {
    const link = event.target.closest("a.n");
    if (!link || event.ctrlKey || event.metaKey) return;
    event.preventDefault();
    const number = Number(link.textContent);
    const from = event.shiftKey && this.view.marked ? this.view.marked[0] : number;
    const range = [Math.min(from, number), Math.max(from, number)];
    history.replaceState(null, "", range[0] === range[1] ? `#L${number}` : `#L${range[0]}-L${range[1]}`);
    this.mark(range);
  }

  setAddress(hash) {
    if (location.hash === hash) this.toAddress();
    else location.hash = hash;
  }

  toAddress() {
    const match = /^#L(\d{1,9})(?:-L?(\d{1,9}))?$/.exec(location.hash);
    if (!match) {
      if (this.view.marked) this.mark(null);
      return;
    }
    const ends = [Number(match[1]), Number(match[2] ?? match[1])].sort((one, other) => one - other);
    if (!this.hasLine(ends[0])) return;
    this.mark(ends);
    this.view.toLine(ends[0] - this.view.log.first);
    byId("log").scrollIntoView({ block: "nearest" });
    byId("log-view").focus({ preventScroll: true });
  }

  // Lines of an enormous log that come before what is kept here are on a page that the server renders.
  hasLine(number) {
    const isHere = number >= this.view.log.first, row = byId(`L${number}`);
    byId("log-frame").hidden = !isHere;
    byId("log-plain").hidden = isHere;
    if (!isHere && row) row.scrollIntoView({ block: "center" });
    else if (!isHere) location.assign(`?log=${Math.max(number - 100, 1)}#L${number}`);
    return isHere;
  }

  mark(range) {
    this.view.mark(range);
    byId("log-copy").lastElementChild.textContent = range ? (range[0] === range[1] ? `Copy line ${range[0]}` : `Copy ${range[0]} to ${range[1]}`) : "Copy";
  }

  // --- Times and copy ---

  setTimes(hasTimes) {
    this.view.hasTimes = hasTimes;
    localStorage.setItem("chef-log-times", hasTimes ? "1" : "0");
    byId("log-times").setAttribute("aria-pressed", String(hasTimes));
    this.view.refresh();
  }

  setWrapping(wraps, { isKept = true } = {}) {
    if (isKept) localStorage.setItem("chef-log-wrap", wraps ? "1" : "0");
    byId("log-wrap").setAttribute("aria-pressed", String(wraps));
    this.view.setWrapping(wraps);
  }

  async copy() {
    const { log, marked } = this.view;
    let text = "";
    if (marked) {
      for (let line = Math.max(marked[0] - log.first, 0); line <= Math.min(marked[1] - log.first, log.count - 1); line++) text += `${Ansi.plain(log.text(line))}\n`;
    } else {
      text = log.whole();
    }
    say((await put(text)) ? "Copied." : "The browser does not let it be copied: open the raw text instead.");
  }
}

async function put(text) {
  try {
    await navigator.clipboard.writeText(text);
    return true;
  } catch {
    const area = document.createElement("textarea"); // where there is no HTTPS, browsers have no clipboard to write to
    area.value = text;
    document.body.append(area);
    area.select();
    const isDone = document.execCommand("copy");
    area.remove();
    return isDone;
  }
}

function say(text) {
  byId("log-status").textContent = text;
}

// As the template filter `duration` writes it.
function span(seconds) {
  if (seconds < 9.95) return `${Math.max(seconds, 0).toFixed(1)} s`;
  const whole = Math.round(seconds), minutes = Math.floor(whole / 60), hours = Math.floor(whole / 3600);
  if (hours) return `${hours} h ${minutes % 60} min`;
  return minutes ? `${minutes} min ${whole % 60} s` : `${whole} s`;
}

const logSection = byId("log");
if (logSection) new BuildPage(logSection).begin().catch(() => say("The log could not be loaded: what is shown is its end. Reload the page to try again."));
