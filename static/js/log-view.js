// A virtual list of a log: only visible rows are in the document; LogText (log-text.js) has the lines.
"use strict";

// Shows a heading for each phase, followed by its lines unless they are folded.
class LogView {
  constructor(element, { onPlace } = {}) {
    this.element = element;
    this.onPlace = onPlace ?? (() => {});
    this.sizer = document.createElement("div");
    this.rows = document.createElement("div");
    this.rows.className = "rows";
    element.replaceChildren(this.sizer, this.rows);
    this.folded = new Set();
    this.hasTimes = false;
    this.wraps = false;
    this.columns = 80; // characters per screen row
    this.measured = new Map(); // screen rows of lines whose length does not tell them
    this.marked = null; // [from, to] in the URL's fragment
    this.pattern = null;
    this.current = -1; // the line of the current match
    this.isFollowing = true;
    this.shown = new Map();
    element.addEventListener("scroll", () => this._onScroll(), { passive: true });
    new ResizeObserver(() => this._onResize()).observe(element);
    this.show(new LogText());
  }

  show(log) {
    this.log = log;
    this.folded.clear();
    this.measured.clear();
    this.current = -1;
    this.widest = 0;
    this.refresh();
  }

  get rowHeight() { return (this._rowHeight ||= parseFloat(getComputedStyle(this.element).lineHeight) || 20); }

  // The log has grown. The view stays where it is, unless it follows the end.
  grown() {
    if (this._isDue) return;
    this._isDue = true;
    requestAnimationFrame(() => {
      this._isDue = false;
      this._layOut();
      if (this.isFollowing) this._toEnd();
      this._draw();
    });
  }

  // Whether long lines are wrapped or run beyond the edge.
  setWrapping(wraps) {
    const { isFollowing } = this, row = this._rowAt(this.element.scrollTop), offset = this._topOf(row) - this.element.scrollTop;
    this.wraps = wraps;
    this.element.classList.toggle("wraps", wraps);
    this.widest = 0;
    this.sizer.style.width = "";
    this.measured.clear();
    this.refresh();
    if (isFollowing) this.toEnd();
    else this._scrollTo(this._topOf(row) - offset);
  }

  refresh() {
    this.shown.clear();
    this.rows.replaceChildren();
    this._layOut();
    this._draw();
  }

  // --- From lines to rows ---

  _layOut() {
    const { phases, count } = this.log;
    let row = 0;
    this.sections = phases.map(({ name, first }, place) => {
      const lines = (phases[place + 1]?.first ?? count) - first;
      const section = { name, first, lines, row, isFolded: this.folded.has(place) };
      row += 1 + (section.isFolded ? 0 : lines);
      return section;
    });
    this.total = row;
    this.element.classList.toggle("empty-log", !count);
    if (this.wraps) this._countUnits();
    const height = `${this._topOf(row)}px`;
    if (this.sizer.style.height !== height) this.sizer.style.height = height;
  }

  // With wrapping: the number of screen rows before each row.
  _countUnits() {
    if (!(this.units?.length > this.total)) this.units = new Uint32Array(Math.ceil(this.total * 1.5) + 1024);
    const { units, measured, columns } = this, widths = this.log.widths();
    let at = 0;
    for (const { row, first, lines, isFolded } of this.sections) {
      units[row] = at++;
      for (let line = first, end = isFolded ? first : first + lines; line < end; line++) {
        units[row + 1 + line - first] = at;
        at += measured.get(line) ?? Math.max(Math.ceil(widths[line] / columns), 1);
      }
    }
    units[this.total] = at;
  }

  _topOf(row) { return (this.wraps ? this.units[row] : row) * this.rowHeight; }

  // The row at `y` pixels from the top.
  _rowAt(y) {
    const unit = Math.max(Math.floor(y / this.rowHeight), 0);
    if (!this.wraps) return Math.min(unit, this.total);
    let low = 0, high = this.total;
    while (low < high) {
      const middle = (low + high + 1) >> 1;
      if (this.units[middle] <= unit) low = middle;
      else high = middle - 1;
    }
    return low;
  }

  _sectionOf(row) {
    let found = 0;
    while (found + 1 < this.sections.length && this.sections[found + 1].row <= row) found++;
    return found;
  }

  rowOf(line) {
    const place = this.log.phases.findLastIndex(({ first }) => first <= line);
    if (place < 0) return 0;
    if (this.folded.delete(place)) this.refresh();
    return this.sections[place].row + 1 + line - this.sections[place].first;
  }

  // --- Drawing ---

  _draw() {
    const { scrollTop, clientHeight } = this.element;
    const first = Math.max(this._rowAt(scrollTop) - 15, 0);
    const last = Math.min(this._rowAt(scrollTop + clientHeight) + 16, this.total);
    const wanted = new Map();
    const open = this.log.starts.length;
    for (let row = first; row < last; row++) {
      const section = this.sections[this._sectionOf(row)];
      const line = row === section.row ? -1 : section.first + row - section.row - 1;
      const key = line < 0 ? `${section.name} ${section.row} ${section.lines} ${section.isFolded}` : line === open ? `open ${this.log.open.length}` : line;
      wanted.set(key, this.shown.get(key) ?? (line < 0 ? this._heading(section) : this._row(line)));
    }
    for (const [key, node] of this.shown) if (!wanted.has(key)) node.remove();
    let before = this.rows.firstChild;
    for (const node of wanted.values()) {
      if (node === before) before = before.nextSibling;
      else this.rows.insertBefore(node, before);
    }
    this.shown = wanted;
    this.rows.style.transform = `translateY(${this._topOf(first)}px)`;
    if (this.wraps) {
      this._measure(first);
      return;
    }
    // The width never shrinks: otherwise the list would jump sideways while it is scrolled.
    const wide = this.rows.scrollWidth;
    if (wide > this.widest) this.sizer.style.width = `${(this.widest = wide)}px`;
  }

  // Measure what lengths do not tell: the page's width, tabs, and wide characters.
  _measure(first) {
    const text = this.rows.querySelector(".t");
    const columns = Math.max(Math.floor((text?.clientWidth ?? 0) / this._characterWidth() + 0.01), 10);
    const isOther = text && columns !== this.columns;
    if (isOther) {
      this.columns = columns;
      this.measured.clear();
    }
    let isWrong = isOther, row = first;
    for (const [key, node] of this.shown) {
      const units = Math.round(node.offsetHeight / this.rowHeight);
      if (typeof key === "number" && (isOther || units !== this.units[row + 1] - this.units[row])) {
        if (units !== Math.max(Math.ceil(this.log.widths()[key] / this.columns), 1)) this.measured.set(key, units);
        else this.measured.delete(key);
        isWrong = true;
      }
      row++;
    }
    if (!isWrong) return;
    const seen = this._rowAt(this.element.scrollTop), offset = this._topOf(seen) - this.element.scrollTop;
    this._layOut();
    if (this.isFollowing) this._toEnd();
    else this._scrollTo(this._topOf(seen) - offset);
    this.rows.style.transform = `translateY(${this._topOf(first)}px)`;
  }

  _characterWidth() {
    if (!this.probe) {
      this.probe = document.createElement("span");
      this.probe.className = "probe";
      this.probe.textContent = "0".repeat(20);
      this.probe.setAttribute("aria-hidden", "true");
      this.element.append(this.probe);
    }
    return this.probe.getBoundingClientRect().width / 20 || 8;
  }

  _heading(section) {
    const node = document.createElement("button");
    node.type = "button";
    node.className = "fold";
    const place = this.sections.indexOf(section);
    node.dataset.place = place;
    node.setAttribute("aria-expanded", String(!section.isFolded));
    node.textContent = `${section.name[0].toUpperCase()}${section.name.slice(1)}`;
    const count = document.createElement("span");
    count.className = "muted";
    count.textContent = `${section.lines.toLocaleString("en")} line${section.lines === 1 ? "" : "s"}`;
    node.append(count);
    node.addEventListener("click", () => this.fold(place));
    return node;
  }

  fold(place) {
    if (!this.folded.delete(place)) this.folded.add(place);
    this.isFollowing = false;
    const hadFocus = this.rows.contains(document.activeElement);
    this.refresh();
    if (hadFocus) this.rows.querySelector(`[data-place="${place}"]`)?.focus({ preventScroll: true });
    this.onPlace();
  }

  _row(line) {
    const about = this.log.about(line), number = line + this.log.first;
    const node = document.createElement("div");
    node.className = `row ${about.stream}`;
    if (this.marked && number >= this.marked[0] && number <= this.marked[1]) node.classList.add("here");
    if (line === this.current) node.classList.add("now");
    const link = document.createElement("a");
    link.className = "n";
    link.href = `#L${number}`;
    link.tabIndex = -1;
    link.textContent = String(number);
    node.append(link);
    if (this.hasTimes) {
      const time = document.createElement("time");
      const moment = new Date(about.time);
      time.dateTime = moment.toISOString();
      time.textContent = moment.toLocaleTimeString("en-GB") + "." + String(moment.getMilliseconds()).padStart(3, "0");
      node.append(time);
    }
    node.append(this._text(line, about.look), "\n");
    return node;
  }

  _text(line, look) {
    const parts = Ansi.pieces(this.log.text(line), look);
    const length = parts.reduce((sum, [text]) => sum + text.length, 0);
    const marks = this.pattern ? this._matches(parts.map(([text]) => text).join("").slice(0, MOST_OF_LINE)) : [];
    const whole = document.createElement("span");
    whole.className = "t";
    let at = 0;
    for (const [text, partLook] of parts) {
      const shown = text.slice(0, Math.max(MOST_OF_LINE - at, 0));
      if (shown) whole.append(...LogView._spans(shown, Ansi.classes(partLook), at, marks));
      at += text.length;
    }
    if (length > MOST_OF_LINE) {
      const more = document.createElement("span");
      more.className = "more";
      more.textContent = ` … ${(length - MOST_OF_LINE).toLocaleString("en")} more characters, which the raw text has`;
      whole.append(more);
    }
    return whole;
  }

  _matches(text) {
    return [...text.matchAll(this.pattern)].map((match) => [match.index, match.index + match[0].length]);
  }

  // One part of a line as elements, split at matches. Text only ever becomes text nodes.
  static _spans(text, classes, offset, marks) {
    const made = [];
    const add = (from, to, isMark) => {
      if (from >= to) return;
      const node = document.createElement(isMark ? "mark" : "span");
      if (classes) node.className = classes;
      LogView.fill(node, text.slice(from, to));
      made.push(node);
    };
    let at = 0;
    for (const [from, to] of marks) {
      const begin = Math.min(Math.max(from - offset, at), text.length), end = Math.min(to - offset, text.length);
      if (end <= begin) continue;
      add(at, begin, false);
      add(begin, end, true);
      at = end;
    }
    add(at, text.length, false);
    return made;
  }

  // Hidden characters, and those that change the text direction, become visible marks.
  static fill(node, text) {
    if (!Ansi.HIDDEN.test(text)) {
      node.textContent = text;
      return;
    }
    // Every second part is a match of the separator.
    text.split(new RegExp(`(${Ansi.HIDDEN.source})`, "u")).forEach((part, place) => {
      if (place % 2 === 0) {
        node.append(part);
        return;
      }
      const mark = document.createElement("span");
      mark.className = "unseen";
      mark.textContent = `U+${part.codePointAt(0).toString(16).toUpperCase().padStart(4, "0")}`;
      node.append(mark);
    });
  }

  // --- Scrolling ---

  get isAtEnd() {
    const { scrollTop, clientHeight, scrollHeight } = this.element;
    return scrollTop + clientHeight >= scrollHeight - this.rowHeight;
  }

  _onScroll() {
    const top = this.element.scrollTop;
    if (this.isAtEnd) this.isFollowing = true;
    else if (top < (this._top ?? 0)) this.isFollowing = false;
    this._top = top;
    if (!this._isDrawing) {
      this._isDrawing = true;
      requestAnimationFrame(() => {
        this._isDrawing = false;
        this._draw();
      });
    }
    this.onPlace();
  }

  _onResize() {
    this._rowHeight = 0;
    this._layOut();
    if (this.isFollowing) this._toEnd();
    this._draw();
  }

  _scrollTo(top) {
    this.element.scrollTop = Math.max(top, 0);
    this._top = this.element.scrollTop;
  }

  _toEnd() { this._scrollTo(this.element.scrollHeight); }

  toTop() {
    this.isFollowing = false;
    this._scrollTo(0);
    this._draw();
    this.onPlace();
  }

  toEnd() {
    this.isFollowing = true;
    this._toEnd();
    this._draw();
    this.onPlace();
  }

  toLine(line) {
    this.isFollowing = false;
    const row = this.rowOf(Math.min(Math.max(line, 0), Math.max(this.log.count - 1, 0)));
    this._scrollTo(this._topOf(row) - this.element.clientHeight / 3);
    this.refresh();
    this.onPlace();
  }

  mark(range) {
    this.marked = range;
    this.refresh();
  }
}
