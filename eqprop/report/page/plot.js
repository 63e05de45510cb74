/** Values → pixels, linear or logarithmic. */
function scaleOf(values, from, to, { log, whole, pad = 0.04 } = {}) {
  let low = Infinity, high = -Infinity;
  for (const v of values) {
    if (v === null || (log && v <= 0)) continue;
    if (v < low) low = v;
    if (v > high) high = v;
  }
  if (low > high) [low, high] = log ? [1, 10] : [0, 1];
  const forth = log ? Math.log10 : (v) => v;
  const back = log ? (v) => 10 ** v : (v) => v;
  let [a, b] = [forth(low), forth(high)];
  if (a === b) {
    const room = log ? 0.3 : Math.abs(a) * 0.1 || 0.5;
    [a, b] = [a - room, b + room];
  }
  const room = pad * (b - a);
  [a, b] = [a - room, b + room];
  const scale = (v) => from + ((forth(v) - a) / (b - a)) * (to - from);
  scale.invert = (pixel) => back(a + ((pixel - from) / (to - from)) * (b - a));
  scale.ticks = (count) => (log ? logTicks(a, b, count) : linearTicks(a, b, count).filter((t) => !whole || Number.isInteger(t)));
  scale.holds = (v) => v !== null && (!log || v > 0);
  return scale;
}

function linearTicks(a, b, count) {
  const raw = (b - a) / Math.max(count, 1);
  const unit = 10 ** Math.floor(Math.log10(raw));
  const step = unit * ([1, 2, 5, 10].find((m) => m * unit >= raw) || 10);
  const ticks = [];
  for (let i = Math.ceil(a / step); i * step <= b + step * 1e-9; i += 1) ticks.push(Number((i * step).toPrecision(12)));
  return ticks;
}

function logTicks(a, b, count) {
  const mantissas = b - a < 1.2 ? [1, 2, 3, 5, 7] : b - a < 2.5 ? [1, 3] : [1];
  const every = Math.max(1, Math.ceil((b - a) / Math.max(count, 1)));
  const ticks = [];
  for (let e = Math.floor(a); e <= Math.ceil(b); e += 1) {
    if (e % every) continue;
    for (const m of mantissas) {
      const v = Number(`${m}e${e}`);
      if (Math.log10(v) >= a && Math.log10(v) <= b) ticks.push(v);
    }
  }
  return ticks.length > 1 ? ticks : linearTicks(10 ** a, 10 ** b, count);
}

/** Whether numbers are better read on a logarithmic axis: all positive, over two decades. */
function spreadsWidely(values, factor = 50) {
  let low = Infinity, high = 0;
  for (const v of values) {
    if (v === null) continue;
    if (v <= 0) return false;
    low = Math.min(low, v);
    high = Math.max(high, v);
  }
  return high / low >= factor;
}

/** A tick's label: as short as it can be. */
function tickText(value) {
  const size = Math.abs(value);
  if (value !== 0 && (size >= 1e5 || size < 1e-4)) return value.toExponential().replace("e+", "e");
  return String(Number(value.toPrecision(6)));
}

/** An empty chart in `box`: its drawing, its scales and where its inside lies.
 *
 *  x, y: {values, log, label, whole, names}; names: a value for each place 0, 1, ... of words. */
function frame(box, x, y, { height = 230, label } = {}) {
  const width = Math.max(box.clientWidth, 200);
  const probe = scaleOf(y.values, 0, 1, y);
  const longest = Math.max(...probe.ticks(5).map((t) => tickText(t).length), 2);
  const inside = { left: 14 + 6.4 * longest, right: width - 12, top: 10, bottom: height - 38 };
  const sx = x.names ? placesOf(x.names, inside) : scaleOf(x.values, inside.left, inside.right, x);
  const sy = scaleOf(y.values, inside.bottom, inside.top, y);
  const root = svg("svg", { viewBox: `0 0 ${width} ${height}`, height, role: "img", "aria-label": label });
  for (const t of sy.ticks(5)) {
    root.append(svg("path", { class: "gridline", d: `M${inside.left} ${sy(t)}H${inside.right}` }),
      svg("text", { x: inside.left - 6, y: sy(t) + 4, "text-anchor": "end" }, tickText(t)));
  }
  let edge = -Infinity;
  const ticks = x.names ? x.names.map((_, i) => i) : sx.ticks(Math.floor((inside.right - inside.left) / 62));
  for (const t of ticks) {
    const text = x.names ? clipped(x.names[t], Math.max(6, Math.floor(sx.step / 6.5))) : tickText(t);
    const half = text.length * 3.2;
    if (sx(t) - half < edge + 6) continue;
    edge = sx(t) + half;
    root.append(svg("text", { x: Math.min(sx(t), width - half - 1), y: inside.bottom + 16, "text-anchor": "middle" }, text));
  }
  root.append(svg("path", { class: "axis", d: `M${inside.left} ${inside.bottom}H${inside.right}` }),
    svg("text", { class: "strong", x: (inside.left + inside.right) / 2, y: height - 5, "text-anchor": "middle" }, x.label));
  box.replaceChildren(root);
  return { root, sx, sy, inside, width, height };
}

function placesOf(names, inside) {
  const step = (inside.right - inside.left) / names.length;
  const scale = (i) => inside.left + (i + 0.5) * step;
  scale.step = step;
  scale.holds = (i) => i !== null;
  return scale;
}

function clipped(text, length) {
  return text.length > length ? `${text.slice(0, length - 1)}…` : text;
}

/** A path through points; a hole where there is no value. */
function lineThrough(xs, ys, sx, sy) {
  let path = "", pen = "M";
  for (let i = 0; i < xs.length; i += 1) {
    if (!sx.holds(xs[i]) || !sy.holds(ys[i])) { pen = "M"; continue; }
    path += `${pen}${sx(xs[i]).toFixed(1)} ${sy(ys[i]).toFixed(1)}`;
    pen = "L";
  }
  return path;
}

/** A line's values as paths: a dot where there is a single one. */
function traceOf(lines, kind, sx, sy) {
  const single = ({ y }) => y.filter((v) => sy.holds(v)).length === 1;
  const path = (some) => some.map((s) => lineThrough(s.x, s.y, sx, sy)).join("");
  const dots = path(lines.filter(single)).replace(/M([^M]+)/g, "M$1h.01");
  const traces = path(lines.filter((line) => !single(line)));
  return [[traces, ""], [dots, " dot"]].filter(([d]) => d).map(([d, dot]) => svg("path", { class: `trace ${kind}${dot}`, d }));
}

/** Where on `root` the pointer is, in its own units. */
function placeOf(event, root, width) {
  const box = root.getBoundingClientRect();
  return { x: ((event.clientX - box.left) / box.width) * width, y: event.clientY - box.top };
}

/** Tells of what the pointer is nearest to: found = near(place) → {text, mark} or null. */
function hovering(drawing, near) {
  let mark = null;
  const leave = () => { mark?.remove(); mark = null; hideTip(); };
  const move = (event) => {
    const found = near(placeOf(event, drawing.root, drawing.width));
    leave();
    if (!found) return;
    mark = found.mark;
    drawing.root.append(mark);
    showTip(event.clientX, event.clientY, found.text);
  };
  drawing.root.addEventListener("pointermove", move);
  drawing.root.addEventListener("pointerdown", move);
  drawing.root.addEventListener("pointerleave", leave);
}
