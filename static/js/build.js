// A build's page: the log, its tools, and one live stream for the log and for the state beside it.
"use strict";

const AGAIN_SECONDS = 5; // until a refused stream is opened again
const QUEUE_SECONDS = 3; // how often a waiting build's queue position is refreshed

const byId = (id) => document.getElementById(id);
const isEnded = () => !["queued", "running"].includes(byId("state").dataset.status);

class BuildPage {
  constructor(section) {
    this.addresses = section.dataset;
    this.view = new LogView(byId("log-view"), { onPlace: () => this.showEnd() });
    this.cursor = "";
    this.event = section.dataset.event; // the last event that the page shows
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
      event.detail.shouldSwap = false; // it was redirected to the sign-in page
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

  // Loads all output so far, page by page.
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
      if (source.readyState !== EventSource.CLOSED || this.source !== source) return; // the browser reconnects on its own
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
    if (entry.attempt === attempt && entry.sequence <= sequence) return; // sent twice
    if (entry.attempt !== this.attempt) this.restart(entry.attempt, 1);
    this.cursor = `${entry.attempt}.${entry.sequence}`;
    this.log.append(entry.text, entry.phase, entry.stream, Date.parse(entry.timestamp));
    this.view.grown();
    this.tools.grown();
    this.showCount();
  }

  changed(change) {
    if (change.phase) reportStatus(`Phase ${change.phase}.`);
    clearTimeout(this.updating);
    this.updating = setTimeout(() => this.update(), 60); // several changes may come at once
  }

  // One at a time: htmx drops a request for an element that another one has replaced in the meantime.
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
    if (status !== before) reportStatus(`The build is ${status}. ${isEnded() ? byId("verdict-title")?.textContent ?? "" : ""}`);
    this.showEnd();
  }

  tick() {
    for (const node of document.querySelectorAll("[data-since]")) node.textContent = span(Date.now() / 1000 - Number(node.dataset.since));
    this.ticks = (this.ticks ?? 0) + 1;
    if (byId("state").dataset.status === "queued" && !document.hidden && !(this.ticks % QUEUE_SECONDS)) this.update();
  }

  // --- Texts beside the log ---

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

function reportStatus(text) {
  byId("log-status").textContent = text;
}

// The same format as the template filter `duration`.
function span(seconds) {
  if (seconds < 9.95) return `${Math.max(seconds, 0).toFixed(1)} s`;
  const whole = Math.round(seconds), minutes = Math.floor(whole / 60), hours = Math.floor(whole / 3600);
  if (hours) return `${hours} h ${minutes % 60} min`;
  return minutes ? `${minutes} min ${whole % 60} s` : `${whole} s`;
}

const logSection = byId("log");
if (logSection) new BuildPage(logSection).begin().catch(() => reportStatus("The log could not be loaded: what is shown is its end. Reload the page to try again."));
