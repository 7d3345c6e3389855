/* Elements, and numbers for people. */

const SVG = "http://www.w3.org/2000/svg";

/** An element: attributes (a function is a listener), then children: elements or texts. */
function make(tag, attributes = {}, ...children) {
  return fill(document.createElement(tag), attributes, children);
}

function draw(tag, attributes = {}, ...children) {
  return fill(document.createElementNS(SVG, tag), attributes, children);
}

function fill(element, attributes, children) {
  for (const [name, value] of Object.entries(attributes)) {
    if (typeof value === "function") element.addEventListener(name, value);
    else if (value !== false && value !== undefined && value !== null) element.setAttribute(name, value === true ? "" : value);
  }
  element.append(...children.flat(Infinity).filter((child) => child !== null && child !== undefined));
  return element;
}

const count = (n) => Math.round(n).toLocaleString("en");

/** 3.27 MiB */
function bytes(n) {
  const units = ["B", "KiB", "MiB", "GiB", "TiB"];
  let unit = 0;
  while (n >= 1024 && unit < units.length - 1) [n, unit] = [n / 1024, unit + 1];
  return `${unit ? n.toFixed(2) : n} ${units[unit]}`;
}

/** 4.56 ms */
function duration(seconds) {
  for (const [factor, unit] of [[1, "s"], [1e3, "ms"], [1e6, "µs"]])
    if (seconds * factor >= 1) return `${(seconds * factor).toFixed(2)} ${unit}`;
  return seconds ? `${(seconds * 1e9).toFixed(0)} ns` : "0 s";
}

const percent = (share) => `${(100 * share).toFixed(share && share < 0.01 ? 1 : 0)} %`;

/** Text of IR with its names, types, symbols and numbers in colours. */
function colored(text) {
  const parts = [];
  const pattern = /(%[\w.$#-]+)|(@[\w.$#-]+|@?"[^"]*")|(![\w.$-]+|\b(?:tensor|memref)<)|\b([a-z_]+\.[a-z_]+)\b|(-?\b\d[\w.+]*)/g;
  let end = 0;
  for (const found of text.matchAll(pattern)) {
    const style = "vsyon"[found.slice(1).findIndex((group) => group !== undefined)];
    if (found.index > end) parts.push(text.slice(end, found.index));
    parts.push(make("span", { class: style }, found[0]));
    end = found.index + found[0].length;
  }
  parts.push(text.slice(end));
  return parts;
}

const tip = {
  show(event, text) {
    const box = document.getElementById("tip");
    box.textContent = text;
    box.hidden = false;
    const { width, height } = box.getBoundingClientRect();
    box.style.left = `${Math.min(event.clientX + 14, innerWidth - width - 8)}px`;
    box.style.top = `${event.clientY + 18 + height > innerHeight ? event.clientY - height - 10 : event.clientY + 18}px`;
  },
  hide() { document.getElementById("tip").hidden = true; },
};
