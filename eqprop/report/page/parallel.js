const AXES = 9;

/** Parallel coordinates: a line a point through its settings to its objective.
 *
 *  points(): those to draw; brush(key, text): called with a filter for a setting. */
function parallelChart(box, keys, points, brush) {
  const all = points().filter((p) => p.mean !== null);
  if (!all.length) {
    box.replaceChildren(el("p", { class: "note" }, "No objective among the runs that are left."));
    return;
  }
  const width = Math.max(box.clientWidth, 105 * (keys.length + 1)), height = 330;
  const [top, bottom, left, right] = [34, height - 24, 60, width - 60];
  const names = [...keys, "objective"];
  const axes = names.map((key, i) => {
    const value = (p) => (key === "objective" ? p.mean : p.settings[key] ?? null);
    const laid = layOut(all.map(value), key);
    const y = laid.names ? upright(laid.names.length, top, bottom) : scaleOf(laid.values, bottom, top, laid);
    return { key, laid, y, x: left + (i * (right - left)) / (names.length - 1), at: (p) => y(laid.place(value(p))) };
  });
  const root = svg("svg", { viewBox: `0 0 ${width} ${height}`, width, height, role: "img",
    "aria-label": `Parallel coordinates of ${plural(all.length, "point")}: ${names.join(", ")}` });
  const path = (p) => axes.map((a, i) => `${i ? "L" : "M"}${a.x.toFixed(1)} ${a.at(p).toFixed(1)}`).join("");
  const ranked = [...all].sort((a, b) => a.mean - b.mean);
  for (let q = 0; q < 10; q += 1) {
    const share = ranked.filter((_, i) => Math.floor((10 * i) / ranked.length) === q);
    if (share.length) root.append(svg("path", { class: `trace ${all.length > 60 ? "thin" : ""} q${q}`, d: share.map(path).join("") }));
  }
  axes.forEach((axis, i) => drawUpright(root, axis, { top, bottom, width, first: i === 0, last: i === axes.length - 1 }, brush));
  box.replaceChildren(root);
  root.style.width = `${width}px`;
  hovering({ root, width }, (at) => {
    const i = Math.min(Math.max(Math.floor(((at.x - left) / (right - left)) * (axes.length - 1)), 0), axes.length - 2);
    const share = (at.x - axes[i].x) / (axes[i + 1].x - axes[i].x);
    let best = null, least = 14;
    for (const p of all) {
      const distance = Math.abs(axes[i].at(p) * (1 - share) + axes[i + 1].at(p) * share - at.y);
      if (distance < least) [best, least] = [p, distance];
    }
    return best && { mark: svg("path", { class: "over", d: path(best) }), text: pointText(best) };
  });
}

function upright(count, top, bottom) {
  return (i) => (count === 1 ? (top + bottom) / 2 : bottom - (i * (bottom - top)) / (count - 1));
}

/** One axis with its ticks; dragging along it filters, a click on its name takes that back. */
function drawUpright(root, axis, { top, bottom, width, first, last }, brush) {
  const anchor = first ? "start" : last ? "end" : "middle";
  const title = svg("text", { class: "strong axisname", x: first ? 2 : last ? width - 2 : axis.x, y: 14, "text-anchor": anchor,
    onclick: () => brush(axis.key, "") }, svg("title", {}, axis.key), clipped(axis.key.split(".").pop(), 16));
  root.append(title, svg("path", { class: "axis", d: `M${axis.x} ${top}V${bottom}` }));
  const ticks = axis.laid.names ? axis.laid.names.map((_, i) => i) : axis.y.ticks(6);
  let edge = Infinity;
  for (const t of ticks) {
    const y = axis.y(t);
    if (y > edge - 12) continue;
    edge = y;
    const text = axis.laid.names ? clipped(axis.laid.names[t].replace(/^.*\.(?=[A-Za-z])/, ""), 14) : tickText(t);
    const side = last ? { x: axis.x + 6 } : { x: axis.x - 6, "text-anchor": "end" };
    root.append(svg("text", { ...side, y: y + 4 }, text));
  }
  const handle = svg("rect", { class: "handle", x: axis.x - 9, y: top, width: 18, height: bottom - top, fill: "transparent", cursor: "ns-resize" });
  const band = svg("rect", { class: "brush", x: axis.x - 8, width: 16, height: 0 });
  let start = null;
  const yOf = (event) => Math.min(Math.max(placeOf(event, root, width).y, top), bottom);
  handle.addEventListener("pointerdown", (event) => { start = yOf(event); handle.setPointerCapture(event.pointerId); });
  handle.addEventListener("pointermove", (event) => {
    if (start === null) return;
    const now = yOf(event);
    band.setAttribute("y", Math.min(start, now));
    band.setAttribute("height", Math.abs(now - start));
  });
  handle.addEventListener("pointerup", (event) => {
    if (start === null) return;
    const ends = [start, yOf(event)].sort((a, b) => b - a);
    start = null;
    band.setAttribute("height", 0);
    brush(axis.key, brushText(axis, ends));
  });
  root.append(band, handle);
}

function brushText(axis, [low, high]) {
  if (axis.laid.names) {
    const middle = (low + high) / 2;
    const order = axis.laid.cells.map((_, i) => i).sort((a, b) => Math.abs(axis.y(a) - middle) - Math.abs(axis.y(b) - middle));
    const cell = axis.laid.cells[order[0]];
    return cell === null ? "–" : `=${shown(cell)}`;
  }
  if (low - high < 4) return "";
  const digits = (v) => Number(v.toPrecision(3));
  return `${digits(axis.y.invert(low))}..${digits(axis.y.invert(high))}`;
}
