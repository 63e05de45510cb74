const data = JSON.parse(document.getElementById("data").textContent);
let DataTable; // what the last library exports; plotly, the first, is a property of the window
for (const { textContent } of document.querySelectorAll(".library")) {
  const source = new Blob([JSON.parse(textContent)], { type: "text/javascript" });
  DataTable = (await import(URL.createObjectURL(source))).default;
}
const COLOURS = ["#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9"];
const GREY = "rgba(128,128,128,0.4)", TOLD = "%{y}<br>%{text}<extra></extra>"; // what a tooltip says
const several = data.runs.length > 1;
const dark = matchMedia("(prefers-color-scheme: dark)").matches;
document.documentElement.classList.toggle("dark", dark); // as DataTables wants it
let left = [...data.runs.keys()]; // the numbers of the runs that the table shows, in its order

const shown = (value) => String(typeof value === "number" ? +value.toPrecision(4) : value ?? "–");
const word = (value) => shown(value).toLowerCase();
const NUMBER = String.raw`([-+]?(?:\d+\.?\d*|\.\d+)(?:e[-+]?\d+)?)`;
const TERM = new RegExp(`^(?:(>=|<=|!=|>|<|=)${NUMBER}|${NUMBER}\\.\\.${NUMBER})$`);
const HOLDS = { ">": (a, b) => a > b, ">=": (a, b) => a >= b, "<": (a, b) => a < b, "<=": (a, b) => a <= b,
  "=": (a, b) => shown(a) === shown(b), "!=": (a, b) => shown(a) !== shown(b) };

/** A test of a cell: null for an empty filter, undefined for one that means nothing. */
function filterOf(text) {
  const wanted = text.trim().toLowerCase();
  if (!wanted) return null;
  const terms = wanted.replace(/([<>=])\s+/g, "$1").split(/\s+/).map((term) => TERM.exec(term));
  if (terms.every(Boolean)) {
    return (cell) => typeof cell === "number" && terms.every(([, sign, bound, low, high]) =>
      (sign ? HOLDS[sign](cell, +bound) : cell >= +low && cell <= +high));
  }
  if (/^[<>]/.test(wanted)) return undefined;
  if (wanted[0] === "=") return (cell) => wanted.slice(1).split("|").includes(word(cell));
  if (wanted[0] === "!") return (cell) => !word(cell).includes(wanted.slice(1));
  return (cell) => word(cell).includes(wanted);
}

/** Numbers by size, then texts; what is missing comes last, whichever way. */
function compare(a, b, sign) {
  if (a === null || b === null) return (a === null) - (b === null);
  if (typeof a !== typeof b) return (typeof b === "number") - (typeof a === "number");
  return sign * (typeof a === "number" ? a - b : `${a}`.localeCompare(b, undefined, { numeric: true }));
}

/** A run's name, the start that all names share apart: a phone leaves it out. */
const named = (name) => [Object.assign(document.createElement("span"),
  { className: "cut", textContent: name.slice(0, data.cut) }), name.slice(data.cut)];

function cell(value, kind, _, { row, col }) {
  if (kind === "filter") return DataTable.util.escapeHtml(shown(value)); // what is searched is read as HTML
  if (kind !== "display") return value;
  const link = col === 0 && data.links[row];
  const node = Object.assign(document.createElement(link ? "a" : "span"), link && { href: link });
  return node.append(...(col === 0 ? named(value) : [shown(value)])), node;
}

/** Makes the table; returns what puts a text into a column's filter. */
function showTable() {
  const inputs = [...document.querySelectorAll("#runs input")];
  const tests = inputs.map(() => null);
  const filter = (i, text) => {
    tests[i] = filterOf(inputs[i].value = text);
    inputs[i].setAttribute("aria-invalid", tests[i] === undefined);
  };
  const clear = () => { inputs.forEach((_, i) => filter(i, "")); table.search("").draw(); };
  DataTable.type("cell", { order: { asc: (a, b) => compare(a, b, 1), desc: (a, b) => compare(a, b, -1) } });
  const table = new DataTable("#runs", {
    data: data.runs, titleRow: 0, autoWidth: false, order: [[2, "desc"]], pageLength: 25,
    drawCallback() { follow(this.api()); },
    columns: data.columns.map(({ key, shown: visible, numeric }) => ({ visible, render: cell, type: "cell",
      className: numeric ? "number" : key, orderSequence: numeric ? ["desc", "asc"] : ["asc", "desc"] })),
    language: { info: "_TOTAL_ of _MAX_ runs", infoEmpty: "0 of _MAX_ runs", infoFiltered: "",
      search: "Search all columns", zeroRecords: "No run is left." },
    layout: { bottomStart: ["info", "pageLength"], topStart: { buttons: [
      { extend: "colvis", text: "Columns" }, { text: "Clear filters", action: clear }, "csv"] } },
  });
  table.search.fixed("filters", (_, row) => tests.every((test, i) => !test || test(row[i])));
  inputs.forEach((input, i) => input.addEventListener("input", () => { filter(i, input.value); table.draw(); }));
  return (i, text) => { filter(i, text); table.column(i).visible(true).draw(); };
}

/** Shows the runs that are left: the first ones in colours, which every chart of curves has. */
function follow(table) {
  left = table.rows({ search: "applied", order: "applied" }).indexes().toArray();
  const first = left.slice(0, COLOURS.length);
  for (const i of table.rows({ page: "current" }).indexes().toArray()) {
    table.row(i).node().style.setProperty("--swatch", COLOURS[first.indexOf(i)] ?? "transparent");
  }
  document.querySelectorAll("#key > span").forEach((node, i) => { // the last one stands for the others
    const rest = left.length - first.length, text = i in COLOURS ? data.runs[first[i]]?.[0] : rest && `${rest} more`;
    node.replaceChildren(...(text ? i in COLOURS ? named(text) : [text] : []));
    Object.assign(node, { hidden: !text }).style.setProperty("--swatch", COLOURS[i] ?? GREY);
  });
  plots.filter((node) => !node.dataset.figure).forEach((node) => { node.stale = true; draw(node); });
}

function curves({ axis, log, range, metrics }) {
  const traces = [], behind = { x: [], y: [], text: [] };
  left.forEach((run, place) => metrics.forEach(([name, label], i) => {
    const [x, y] = data.curves[run][name] ?? [[], []];
    const rest = { x, y, text: x.map(() => data.labels[run]) };
    if (several && place >= COLOURS.length) return Object.keys(rest).forEach((key) => behind[key].push(...rest[key], null));
    const line = { color: COLOURS[(place + i) % 6], dash: ["solid", "dash", "dot"][Math.floor(i / 6) % 3] };
    traces.unshift({ x, y, line, marker: { size: 5 }, mode: x.length < 25 ? "lines+markers" : "lines",
      name: label, text: x.map(() => (several ? data.labels[run] : label)), hovertemplate: TOLD });
  }));
  const dtick = axis === "epoch" && Math.max(...traces.flatMap((trace) => trace.x)) <= 10 ? 1 : undefined;
  traces.unshift({ ...behind, line: { color: GREY, width: 1 }, mode: "lines", hovertemplate: TOLD, showlegend: false });
  return { data: traces, layout: { showlegend: !several && metrics.length > 1,
    xaxis: { title: { text: axis }, dtick }, yaxis: { type: log ? "log" : "linear", range: range ?? undefined } } };
}

/** Of some axes of the settings, the values of the runs that are left. */
function kept(axes) {
  const open = new Set(left);
  return axes.map((axis) => axis.values.filter((_, i) => open.has(data.parallel.rows[i])));
}

function parallel() {
  const { axes } = data.parallel, [cmin, cmax] = axes.at(-1).range, columns = kept(axes);
  const dimensions = axes.map((axis, i) => ({ ...axis, values: columns[i] }));
  const line = { color: columns.at(-1), cmin, cmax, colorscale: [[0, COLOURS[4]], [1, COLOURS[0]]] };
  return { data: [{ type: "parcoords", dimensions, line }], layout: { margin: { t: 50, l: 90, r: 60, b: 24 } } };
}

function setting(axis) {
  const { axes, rows } = data.parallel, { range, tickvals, ticktext } = axis;
  const [x, y, runs] = kept([axis, axes.at(-1), { values: rows }]);
  const marker = { size: 7, color: COLOURS[0], line: { width: 2 }, symbol: runs.map((run) => (data.runs[run][1] === "pruned" ? "circle-open" : "circle")) };
  const trace = { x, y, marker, mode: "markers", text: runs.map((run) => data.labels[run]), hovertemplate: TOLD };
  return { data: [trace], layout: { xaxis: { range, tickvals, ticktext }, yaxis: { title: { text: "objective" } } } };
}

function brushed(node, filter) {
  const i = node.data[0].dimensions.findIndex(({ constraintrange }) => constraintrange);
  if (i < 0) return;
  const { column, names, log } = data.parallel.axes[i];
  const ends = node.data[0].dimensions[i].constraintrange.flat(), low = Math.min(...ends), high = Math.max(...ends);
  const text = (place) => +(log ? 10 ** place : place).toPrecision(4);
  const inside = names?.slice(Math.max(Math.ceil(low), 0), Math.floor(high) + 1).join("|");
  filter(column, names ? inside && `=${inside}` : `${text(low)}..${text(high)}`);
}

function draw(node) {
  if (!node.stale || !node.seen) return;
  node.stale = false;
  const { data: traces, layout } = node.figure();
  const axis = { gridcolor: GREY, zerolinecolor: GREY, automargin: true, exponentformat: "e" };
  Plotly.react(node, traces, { paper_bgcolor: "transparent", plot_bgcolor: "transparent",
    font: { color: dark ? "#ddd" : "#222", size: 11 }, margin: { t: 26, l: 40, r: 10, b: 36 },
    legend: { orientation: "h", y: 1.02, yanchor: "bottom", traceorder: node.dataset.chart ? "reversed" : "normal" },
    modebar: { bgcolor: "transparent" }, showlegend: false, hovermode: "closest", ...layout,
    xaxis: { ...axis, ...layout.xaxis }, yaxis: { ...axis, ...layout.yaxis },
  }, { responsive: true, modeBarButtons: [["toImage"]], displaylogo: false });
}

const watch = new IntersectionObserver((entries) => entries.forEach(({ target, isIntersecting }) => {
  draw(Object.assign(target, { seen: isIntersecting }));
}), { rootMargin: "300px" });
const plots = [...document.querySelectorAll(".plot")];
for (const node of plots) {
  const { figure, chart, setting: axis } = node.dataset;
  node.figure = figure ? () => JSON.parse(figure) : chart ? () => curves(data.charts[chart])
    : axis ? () => setting(data.parallel.axes[axis]) : parallel;
  node.stale = true;
  watch.observe(node);
}
document.querySelectorAll("table.sortable").forEach((node) => new DataTable(node, {
  paging: node.rows.length > 50, info: false, searching: false, order: [] }));
const filter = several && showTable();
for (const node of document.querySelectorAll("#parallel")) {
  draw(Object.assign(node, { seen: true }));
  node.on("plotly_restyle", () => brushed(node, filter));
}
addEventListener("beforeprint", () => plots.forEach((node) => draw(Object.assign(node, { seen: true }))));
