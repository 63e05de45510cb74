/** A card with a title that holds a drawing. */
function chartCard(title, draw, extra = null) {
  const box = el("div", { class: "box" });
  const card = el("figure", { class: "chart" }, el("h3", {}, title), extra, box);
  whenSeen(card, () => draw(box));
  return card;
}

/** Lines over one axis.
 *
 *  series(): [{label, x, y, kind}]; kind a class of colour, or "grey" for those behind. */
function lineChart(box, title, xLabel, series) {
  const all = series();
  const flat = (name) => all.flatMap((s) => s[name]);
  const ys = flat("y");
  if (!ys.some((v) => v !== null)) {
    box.replaceChildren(el("p", { class: "note" }, "Nothing to draw: no finite value of the rows that are left."));
    return;
  }
  const log = !title.startsWith("accuracy") && spreadsWidely(ys.filter((v) => v !== null));
  const drawing = frame(box, { values: flat("x"), label: xLabel, whole: true, pad: 0.015 }, { values: ys, log },
    { label: `${title} against ${xLabel}, ${plural(all.length, "line")}${log ? ", logarithmic" : ""}` });
  const { root, sx, sy } = drawing;
  root.append(...traceOf(all.filter((s) => s.kind === "grey"), "thin grey", sx, sy));
  for (const s of all.filter((one) => one.kind !== "grey").reverse()) root.append(...traceOf([s], s.kind, sx, sy));
  hovering(drawing, (at) => nearestOnLine(all, at, sx, sy, xLabel));
}

function nearestOnLine(all, at, sx, sy, xLabel) {
  let best = null, least = 45 ** 2;
  for (const s of all) {
    for (let i = 0; i < s.x.length; i += 1) {
      if (!sy.holds(s.y[i])) continue;
      const distance = (sx(s.x[i]) - at.x) ** 2 + (sy(s.y[i]) - at.y) ** 2;
      if (distance < least) [best, least] = [{ s, i }, distance];
    }
  }
  if (!best) return null;
  const { s, i } = best;
  const mark = svg("g", {}, svg("path", { class: "over", d: lineThrough(s.x, s.y, sx, sy) }),
    svg("circle", { class: "ring", cx: sx(s.x[i]), cy: sy(s.y[i]), r: 4.5 }));
  return { mark, text: `${s.label}\n${xLabel} ${shown(s.x[i])}: ${shown(s.y[i])}` };
}

function legend(entries) {
  return el("div", { class: "legend" }, ...entries.map(({ kind, label }) =>
    el("span", {}, el("span", { class: `swatch ${kind}` }), label)));
}

/** Numbers, or words with a place each: how a setting is laid along an axis. */
function layOut(values, label) {
  const numbers = values.filter((v) => typeof v === "number");
  const wordy = values.some((v) => v !== null && typeof v !== "number");
  if (!wordy && numbers.length && !values.includes(null)) {
    return { label, values: numbers, log: spreadsWidely(numbers, 20), place: (v) => v, pad: 0.06 };
  }
  const distinct = [...new Set(values)].sort((a, b) => compareCells(a, b, 1));
  const places = new Map(distinct.map((v, i) => [v, i]));
  return { label, names: distinct.map((v) => shown(v)), cells: distinct, place: (v) => places.get(v) };
}

/** The objective of each point against one of its settings; what failed lies on the axis. */
function parameterChart(box, key, points, label) {
  const valueOf = (point) => point.settings[key] ?? null;
  const axis = layOut(points.map(valueOf), key);
  const told = points.filter((p) => p.mean !== null);
  if (!told.length) {
    box.replaceChildren(el("p", { class: "note" }, "No objective among the runs that are left."));
    return;
  }
  const reach = told.flatMap((p) => [p.mean - (p.error || 0), p.mean + (p.error || 0)]);
  const drawing = frame(box, axis, { values: reach }, { label: `${label} against ${key}, ${plural(points.length, "point")}` });
  const { root, sx, sy, inside } = drawing;
  const at = (p) => [sx(axis.place(valueOf(p))), p.mean === null ? inside.bottom : sy(p.mean)];
  const bars = told.filter((p) => p.error).map((p) =>
    `M${at(p)[0].toFixed(1)} ${sy(p.mean - p.error).toFixed(1)}V${sy(p.mean + p.error).toFixed(1)}`).join("");
  const dots = told.map((p) => `M${at(p).map((v) => v.toFixed(1)).join(" ")}h.01`).join("");
  const lost = points.filter((p) => p.mean === null).map((p) => {
    const [x, y] = at(p);
    return `M${x - 3.5} ${y - 3.5}l7 7m0 -7l-7 7`;
  }).join("");
  root.append(svg("path", { class: "bars c0", d: bars }), svg("path", { class: "dots c0", d: dots }),
    svg("path", { class: "bars bad", d: lost }));
  hovering(drawing, (place) => {
    let best = null, least = 30 ** 2;
    for (const p of points) {
      const [x, y] = at(p);
      const distance = (x - place.x) ** 2 + (y - place.y) ** 2;
      if (distance < least) [best, least] = [p, distance];
    }
    if (!best) return null;
    const [cx, cy] = at(best);
    return { mark: svg("circle", { class: "ring", cx, cy, r: 6 }), text: pointText(best) };
  });
}

function pointText(point) {
  const settings = Object.entries(point.settings).map(([key, value]) => `${key} = ${shown(value)}`);
  return [`objective ${meanText(point)}`, ...settings].join("\n");
}

function meanText({ mean, error, n }) {
  if (mean === null) return "– (none finished)";
  return n > 1 ? `${meanAndError(mean, error)} (n = ${n})` : shown(mean);
}

/** Two digits of the error, and as many decimals of the mean. */
function meanAndError(mean, error) {
  if (mean === null) return "–";
  if (!error) return error === null ? shown(mean) : `${shown(mean)} ± 0`;
  const decimals = Math.min(Math.max(1 - Math.floor(Math.log10(error)), 0), 12);
  return decimals > 7 ? `${shown(mean)} ± ${shown(error)}` : `${mean.toFixed(decimals)} ± ${error.toFixed(decimals)}`;
}
