// The tools above a log: search, times, wrapping, copying; and links to lines. Uses `byId` and `reportStatus` of build.js.
"use strict";

const MOST_FOUND = 10_000;

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
    this.showCount();
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
    this.showCount();
  }

  showCount() {
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
      event.preventDefault(); // jump: browsers would scroll smoothly, and lag behind when another key follows
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

  // --- Links to lines ---

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

  // Lines before those kept here, in an enormous log, are on a page rendered by the server.
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
    reportStatus((await put(text)) ? "Copied." : "The browser does not let it be copied: open the raw text instead.");
  }
}

async function put(text) {
  try {
    await navigator.clipboard.writeText(text);
    return true;
  } catch {
    const area = document.createElement("textarea"); // without HTTPS, browsers offer no clipboard API
    area.value = text;
    document.body.append(area);
    area.select();
    const isDone = document.execCommand("copy");
    area.remove();
    return isDone;
  }
}
