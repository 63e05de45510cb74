const data = JSON.parse(document.getElementById("data").textContent);

/** An element with attributes and children; texts become text, never markup. */
function el(tag, attributes = {}, ...children) {
  return fill(document.createElement(tag), attributes, children);
}

function svg(tag, attributes = {}, ...children) {
  return fill(document.createElementNS("http://www.w3.org/2000/svg", tag), attributes, children);
}

function fill(node, attributes, children) {
  for (const [name, value] of Object.entries(attributes)) {
    if (name.startsWith("on")) node.addEventListener(name.slice(2), value);
    else if (value === true) node.setAttribute(name, "");
    else if (value !== false && value !== null && value !== undefined) node.setAttribute(name, value);
  }
  node.append(...children.filter((child) => child !== null && child !== undefined));
  return node;
}

/** A value as a person reads it: four digits, no more. */
function shown(value) {
  if (value === null || value === undefined) return "–";
  if (typeof value !== "number") return String(value);
  if (Number.isInteger(value) && Math.abs(value) < 1e6) return String(value);
  const size = Math.abs(value);
  if (size < 1e-4 || size >= 1e6) return value.toExponential(3).replace(/\.?0+e/, "e").replace("e+", "e");
  return String(Number(value.toPrecision(4)));
}

/** In a column of numbers, how many decimals show every one of them with four digits. */
function columnFormat(values) {
  const numbers = values.filter((v) => typeof v === "number");
  const sizes = numbers.filter((v) => !Number.isInteger(v)).map(Math.abs);
  if (!sizes.length || Math.max(...sizes) >= 1e6) return shown;
  const largest = numbers.reduce((a, b) => Math.max(a, Math.abs(b)), 0);
  const smallest = sizes.reduce((a, b) => Math.min(a, b), Infinity);
  if (smallest < 1e-4 || largest / smallest > 1e3) return shown;
  const decimals = Math.max(1, largest < 1 ? 4 : 3 - Math.floor(Math.log10(largest)));
  return (value) => (typeof value === "number" ? value.toFixed(decimals) : shown(value));
}

function plural(count, one, many = `${one}s`) {
  return `${count} ${count === 1 ? one : many}`;
}

function section(title, note, ...children) {
  const head = [el("h2", {}, title)];
  if (note) head.push(el("p", { class: "note" }, note));
  const made = el("section", { "aria-label": title }, ...head, ...children);
  document.getElementById("main").append(made);
  return made;
}

const tip = document.getElementById("tip");

function showTip(x, y, text) {
  tip.textContent = text;
  tip.hidden = false;
  const box = tip.getBoundingClientRect();
  const left = x + 14 + box.width > innerWidth ? x - 14 - box.width : x + 14;
  tip.style.left = `${Math.max(4, Math.min(left, innerWidth - box.width - 4))}px`;
  tip.style.top = `${Math.max(4, Math.min(y + 14, innerHeight - box.height - 4))}px`;
}

function hideTip() {
  tip.hidden = true;
}

/** Calls `draw` when `node` comes into view, and again after `redraw()` or a change of width. */
const waiting = new Map();
const seen = new IntersectionObserver((entries) => {
  for (const { target, isIntersecting } of entries) {
    const state = waiting.get(target);
    state.visible = isIntersecting;
    if (isIntersecting && state.stale) paint(state);
  }
}, { rootMargin: "300px" });
const sized = new ResizeObserver((entries) => {
  for (const { target, contentRect } of entries) {
    const state = waiting.get(target);
    if (state.width !== undefined && Math.abs(state.width - contentRect.width) >= 1) touch(state);
    state.width = contentRect.width;
  }
});

function whenSeen(node, draw) {
  waiting.set(node, { draw, stale: true, visible: false });
  seen.observe(node);
  sized.observe(node);
}

function paint(state) {
  state.stale = false;
  state.draw();
}

function touch(state) {
  state.stale = true;
  if (state.visible) paint(state);
}

function redraw() {
  for (const state of waiting.values()) touch(state);
}

addEventListener("beforeprint", () => waiting.forEach((state) => state.stale && paint(state)));
