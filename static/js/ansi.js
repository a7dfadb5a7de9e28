// The browser's parser of ANSI escape sequences. It mirrors chef/text/ansi.py; stored logs contain only colours.
// Change both together.
"use strict";

const Ansi = (() => {
  const SGR = /\x1b\[([0-9;:]*)m/g;
  const BASIC = ["", "0", "4", "2", "8", "10", "6", ""];
  const LEVELS = [0, 95, 135, 175, 215, 255];
  // The same as in chef/text/hidden_characters.py.
  const HIDDEN = /[\x00-\x08\x0b-\x1f\x7f-\x9f\xad\u061c\u180e\u200b\u200e\u200f\u2028-\u202e\u2060-\u206f\ufeff\ufff9-\ufffb\u{e0000}-\u{e007f}]|(?<![\u0600-\u{10ffff}])[\u200c\u200d]/u;
  const PLAIN = Object.freeze({ ink: "", ground: "", bold: false, dim: false, italic: false, underlined: false, struck: false, inverse: false });
  const SWITCHES = { 1: { bold: true }, 2: { dim: true }, 3: { italic: true }, 4: { underlined: true }, 7: { inverse: true }, 9: { struck: true }, 21: { underlined: true },
    22: { bold: false, dim: false }, 23: { italic: false }, 24: { underlined: false }, 27: { inverse: false }, 29: { struck: false } };

  function classes(look) {
    const [ink, ground] = look.inverse ? [look.ground, look.ink || "g"] : [look.ink, look.ground];
    return [ink && `f${ink}`, ground && `b${ground}`, look.bold && "bo", look.dim && "di", look.italic && "it", look.underlined && "un", look.struck && "st"].filter(Boolean).join(" ");
  }

  // [[text without colours, its look], …], starting with `look`; the last look applies to the text that follows.
  function pieces(text, look = PLAIN) {
    const found = [];
    let end = 0;
    SGR.lastIndex = 0;
    for (let match = SGR.exec(text); match; match = SGR.exec(text)) {
      if (match.index > end) found.push([text.slice(end, match.index), look]);
      look = changed(look, match[1]);
      end = SGR.lastIndex;
    }
    found.push([text.slice(end), look]);
    return found;
  }

  function changed(look, parameters) {
    const numbers = parameters.replaceAll(":", ";").split(";").map((part) => (part.length < 6 ? Math.min(Number(part || 0), 9999) : 9999));
    for (let at = 0; at < numbers.length;) {
      const number = numbers[at++];
      if (number === 38 || number === 48) {
        const [colour, taken] = extended(numbers.slice(at));
        at += taken;
        look = { ...look, [number === 38 ? "ink" : "ground"]: colour };
      } else {
        look = basic(look, number);
      }
    }
    return look;
  }

  function basic(look, number) {
    if (number === 0) return PLAIN;
    if (number in SWITCHES) return { ...look, ...SWITCHES[number] };
    const tens = Math.floor(number / 10), one = number % 10;
    if ((tens === 3 || tens === 9) && one <= 7) return { ...look, ink: number === 90 ? "g" : BASIC[one] };
    if ((tens === 4 || tens === 10) && one <= 7) return { ...look, ground: BASIC[one] || "g" };
    if (number === 39) return { ...look, ink: "" };
    return number === 49 ? { ...look, ground: "" } : look;
  }

  function extended(numbers) {
    if (numbers[0] === 5 && numbers.length >= 2) return [fromPalette(numbers[1]), 2];
    if (numbers[0] === 2 && numbers.length >= 4) return [fromRgb(numbers[1], numbers[2], numbers[3]), 4];
    return ["", numbers.length];
  }

  function fromPalette(number) {
    if (number < 16) return number === 8 ? "g" : BASIC[number % 8];
    if (number < 232) {
      const rest = (number - 16) % 36;
      return fromRgb(LEVELS[Math.floor((number - 16) / 36)], LEVELS[Math.floor(rest / 6)], LEVELS[rest % 6]);
    }
    const grey = 8 + 10 * (number - 232);
    return number < 256 ? fromRgb(grey, grey, grey) : "";
  }

  function fromRgb(red, green, blue) {
    const most = Math.max(red, green, blue), chroma = most - Math.min(red, green, blue);
    if (chroma < 40) return most >= 60 && most <= 180 ? "g" : "";
    let hue;
    if (most === red) hue = (((green - blue) / chroma) % 6 + 6) % 6;
    else hue = most === green ? (blue - red) / chroma + 2 : (red - green) / chroma + 4;
    return String(Math.floor(hue * 2 + 0.5) % 12);
  }

  return { PLAIN, HIDDEN, classes, pieces, plain: (text) => text.replace(SGR, "") };
})();
