// A log in the browser: its text, stored compactly, with access by line.
"use strict";

const MOST_OF_LINE = 4000; // characters shown of a line, as in builds/templatetags/chef.py

// A growing typed array of numbers.
class Numbers {
  constructor(kind = Uint32Array) {
    this.items = new kind(1024);
    this.length = 0;
  }

  push(number) {
    if (this.length === this.items.length) {
      const larger = new this.items.constructor(this.length * 2);
      larger.set(this.items);
      this.items = larger;
    }
    this.items[this.length++] = number;
  }

  // The index of the last number that is not greater; -1 if there is none. The numbers must be sorted.
  lastUpTo(number) {
    let low = 0, high = this.length;
    while (low < high) {
      const middle = (low + high) >> 1;
      if (this.items[middle] <= number) low = middle + 1;
      else high = middle;
    }
    return low - 1;
  }
}

// The lines of one attempt. Lines are counted from 0; `first` is the number shown for line 0.
class LogText {
  constructor(first = 1) {
    this.first = first;
    this.blocks = []; // text of complete lines, some 64 K characters per block
    this.blockLines = new Numbers(); // the first line of each block
    this.starts = new Numbers(); // the offset of each line in its block
    this.open = ""; // the beginning of the last line, which has no line end yet
    this.runLines = new Numbers(); // the lines at which the phase, stream or time changes
    this.runTimes = new Numbers(Float64Array);
    this.runs = []; // [phase, stream]
    this.looks = new Map(); // of lines that begin with a colour switched on
    this.look = Ansi.PLAIN;
    this.phases = []; // {name, first}
  }

  get count() { return this.starts.length + (this.open ? 1 : 0); }

  append(text, phase, stream, time) {
    const last = this.runs.at(-1);
    const isSame = last && last[0] === phase && last[1] === stream;
    if (!isSame) this.look = Ansi.PLAIN;
    const begun = this.starts.length, isWithin = this.open !== "";
    const begins = begun + (isWithin ? 1 : 0); // a begun line keeps its phase and stream
    if (!isSame) this.looks.delete(begins);
    if (!isSame || this.runTimes.items[this.runTimes.length - 1] !== time) {
      this.runLines.push(begins);
      this.runTimes.push(time);
      this.runs.push(isSame ? last : [phase, stream]);
    }
    const name = phase || "preparation";
    if (this.phases.at(-1)?.name !== name) this.phases.push({ name, first: begins });
    const whole = this.open + text;
    const end = whole.lastIndexOf("\n") + 1;
    this.open = whole.slice(end);
    if (end) this._addLines(end === whole.length ? whole : whole.slice(0, end));
    if (this.look !== Ansi.PLAIN || text.includes("\x1b")) this._follow(text, begun, isWithin);
  }

  _addLines(text) {
    const isFull = !this.blocks.length || this.blocks.at(-1).length > 65536;
    if (isFull) {
      this.blocks.push("");
      this.blockLines.push(this.starts.length);
    }
    const offset = this.blocks.at(-1).length;
    for (let at = 0; at < text.length;) {
      this.starts.push(offset + at);
      at = text.indexOf("\n", at) + 1;
    }
    this.blocks[this.blocks.length - 1] += text;
  }

  // Colours that are not reset before the end of a line continue on the next.
  _follow(text, line, isWithin) {
    text.split("\n").forEach((part, place) => {
      if (place || !isWithin) {
        if (this.look === Ansi.PLAIN) this.looks.delete(line);
        else this.looks.set(line, this.look);
      }
      if (part.includes("\x1b")) this.look = Ansi.pieces(part, this.look).at(-1)[1];
      if (Ansi.classes(this.look) === "") this.look = Ansi.PLAIN;
      line++;
    });
  }

  text(line) {
    if (line >= this.starts.length) return this.open;
    const block = this.blockLines.lastUpTo(line);
    const nextBlock = block + 1 < this.blockLines.length ? this.blockLines.items[block + 1] : this.starts.length;
    const end = line + 1 < nextBlock ? this.starts.items[line + 1] : this.blocks[block].length;
    return this.blocks[block].slice(this.starts.items[line], end - 1);
  }

  about(line) {
    const run = this.runLines.lastUpTo(line);
    const [phase, stream] = this.runs[run] ?? ["", "system"];
    return { phase, stream, time: this.runTimes.items[run], look: this.looks.get(line) ?? Ansi.PLAIN };
  }

  // Lines that contain a text, ignoring case; at most `most`.
  find(wanted, most) {
    const pattern = LogText.pattern(wanted);
    const found = [];
    const look = (text, first) => {
      const plain = text.includes("\x1b") ? Ansi.plain(text) : text;
      pattern.lastIndex = 0;
      let line = first, counted = 0;
      for (let match = pattern.exec(plain); match && found.length < most; match = pattern.exec(plain)) {
        for (let at = plain.indexOf("\n", counted); at !== -1 && at < match.index; at = plain.indexOf("\n", counted)) {
          line++;
          counted = at + 1;
        }
        found.push(line);
        const end = plain.indexOf("\n", match.index);
        if (end === -1) break;
        pattern.lastIndex = end;
      }
    };
    this.blocks.forEach((text, block) => found.length < most && look(text, this.blockLines.items[block]));
    if (this.open) look(this.open, this.starts.length);
    return found;
  }

  static pattern(wanted) { return new RegExp(wanted.replace(/[.*+?^${}()|[\]\\]/g, "\\$&"), "gi"); }

  // The number of characters shown of each line.
  widths() {
    this.widthsKnown ??= new Numbers();
    for (let line = this.widthsKnown.length; line < this.starts.length; line++) this.widthsKnown.push(LogText._width(this.text(line)));
    const widths = this.widthsKnown.items;
    if (!this.open) return widths;
    if (widths.length === this.starts.length) { // room for the open line
      this.widthsKnown.push(0);
      this.widthsKnown.length--;
    }
    this.widthsKnown.items[this.starts.length] = LogText._width(this.open);
    return this.widthsKnown.items;
  }

  static _width(text) {
    const length = (text.includes("\x1b") ? Ansi.plain(text) : text).length;
    return length > MOST_OF_LINE ? MOST_OF_LINE + 50 : length; // with the note that it continues
  }

  whole() { return Ansi.plain(this.blocks.join("") + this.open); }
}
