// Shared by all parts of the page: data, elements, formatting of numbers. Names are always set as text, never as markup.
"use strict";
const page = JSON.parse(document.getElementById("data").textContent);
const SVG = "http://www.w3.org/2000/svg";

function fill(node, attributes, children) {
  for (const [name, value] of Object.entries(attributes || {})) {
    if (value !== null && value !== undefined && value !== false) node.setAttribute(name, value === true ? "" : value);
  }
  node.append(...children.flat(Infinity).filter((child) => child !== null && child !== undefined));
  return node;
}

const el = (tag, attributes, ...children) => fill(document.createElement(tag), attributes, children);
const svg = (tag, attributes, ...children) => fill(document.createElementNS(SVG, tag), attributes, children);
const announce = (words) => { document.getElementById("announce").textContent = words; };

// A number with about so many significant digits and thousands separators, never with an exponent.
function figures(value, digits = 3) {
  if (!Number.isFinite(value)) return "unknown";
  const places = value === 0 ? 0 : Math.min(Math.max(digits - 1 - Math.floor(Math.log10(Math.abs(value))), 0), 9);
  return value.toLocaleString("en", { minimumFractionDigits: places, maximumFractionDigits: places });
}

// A text, wrapped to lines of at most so many characters; only words longer than a line are broken.
function linesOf(text, most) {
  const room = Math.max(Math.floor(most), 8), lines = [""];
  for (let word of text.split(" ")) {
    const here = lines.at(-1) ? `${lines.at(-1)} ${word}` : word;
    if (here.length <= room) { lines[lines.length - 1] = here; continue; }
    if (lines.at(-1)) lines.push("");
    for (; word.length > room; word = word.slice(room)) lines.splice(-1, 0, word.slice(0, room));
    lines[lines.length - 1] = word;
  }
  return lines;
}
const withUnit = (text, unit) => (unit ? `${text} ${unit}` : text);
const quantity = (value, cost) => withUnit(figures(value / cost.scale), cost.unit);
const percent = (share) => (Number.isFinite(share) ? `${(100 * share).toFixed(2)} %` : "unknown");
const floats = (values) => Float64Array.from(values || [], (value) => (value === null ? NaN : value));

function extent(...arrays) {
  let low = Infinity, high = -Infinity;
  for (const values of arrays) {
    for (const value of values) {
      if (value < low) low = value;
      if (value > high) high = value;
    }
  }
  return low <= high ? [low, high] : [0, 1];
}

// About `count` round tick positions between two ends.
function niceTicks(low, high, count) {
  const rough = (high - low) / Math.max(count, 1) || 1;
  const power = 10 ** Math.floor(Math.log10(rough));
  const away = (size) => Math.abs(Math.log(size / rough));
  const step = [1, 2, 2.5, 5, 10].map((factor) => factor * power).reduce((best, size) => (away(size) < away(best) ? size : best));
  const ticks = [];
  for (let k = Math.ceil(low / step - 1e-9); k * step <= high + step * 1e-9; k++) ticks.push(k * step);
  const places = Math.max(0, Math.min(9, -Math.floor(Math.log10(step) + 1e-9) + (step / power === 2.5 ? 1 : 0)));
  const words = (at) => at.toLocaleString("en", { minimumFractionDigits: places, maximumFractionDigits: places });
  return ticks.map((at) => at || 0).map((at) => [at, words(at)]); // 0 and not -0
}

// Calls `draw` now and whenever the element's width changes.
function drawnAtWidth(element, draw) {
  let width = 0;
  const look = () => {
    const found = Math.floor(element.clientWidth);
    if (found > 0 && found !== width) draw((width = found));
  };
  new ResizeObserver(look).observe(element);
  look();
  requestAnimationFrame(look); // the element may not be in the page yet, and the observer does not report invisible elements
}

// A box of facts beside a point of a chart or drawing.
class Tip {
  constructor(host) {
    this.host = host;
    this.box = el("div", { class: "tip", hidden: true, "aria-hidden": "true" });
    host.append(this.box);
  }

  // `lines` are [name, words] or plain words; x and y in pixels within the host.
  show(lines, x, y) {
    this.box.replaceChildren(...lines.map((line) => (Array.isArray(line)
      ? el("div", {}, el("span", {}, line[0]), el("b", {}, line[1]))
      : el("div", {}, line))));
    this.box.hidden = false;
    const room = this.host.clientWidth, width = this.box.offsetWidth, height = this.box.offsetHeight;
    const left = x + 14 + width <= room ? x + 14 : Math.max(0, x - 14 - width);
    this.box.style.left = `${Math.min(left, Math.max(0, room - width))}px`;
    // Below the point if there is room: in accuracy against cost, that region is empty.
    this.box.style.top = `${y + 14 + height <= this.host.clientHeight ? y + 14 : Math.max(0, y - height - 10)}px`;
  }

  hide() { this.box.hidden = true; }
}

const inWords = (lines) => lines.map((line) => (Array.isArray(line) ? line.join(" ") : line)).join(", ");
