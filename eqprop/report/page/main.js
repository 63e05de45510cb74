const TOP = 6;
const MEAN = "mean ± standard error";
const { runs, columns, points } = data;
const several = runs.length > 1;
const objectiveAt = columns.findIndex((column) => column.key === "objective");
let left = runs.map((_, i) => i);
let table;

showHead();
showFailures();
if (several) showRuns();
showRepeats();
showCurves();
if (several) showParameters();
showDetails();
showSettings();
showFoot();

function showHead() {
  const states = new Map();
  for (const run of runs) states.set(run.state, (states.get(run.state) || 0) + 1);
  const tile = (value, label, kind = "") => el("div", { class: `tile ${kind}` }, el("b", {}, value), label);
  const stateTiles = several
    ? [tile(runs.length, "runs"), ...STATES.concat([...states.keys()].filter((s) => !STATES.includes(s)))
      .filter((s) => states.has(s)).map((s) => tile(states.get(s), el("span", { class: s }, s)))]
    : [el("div", { class: "tile" }, el("b", { class: runs[0].state }, runs[0].state), "state")];
  const results = several ? [bestTile()] : columns.map((column, i) => [column, runs[0].cells[i]])
    .filter(([column, value]) => column.group === "result" && column.shown && value !== null)
    .map(([column, value]) => tile(columnFormat([value])(value), column.key));
  document.getElementById("head").append(el("h1", {}, data.title),
    el("p", { class: "soft code" }, data.folder),
    el("div", { class: "tiles" }, ...stateTiles, ...results));
}

function bestTile() {
  const done = runs.filter((run) => run.cells[objectiveAt] !== null && ["done", "running"].includes(run.state));
  if (!done.length) return el("div", { class: "tile wide" }, el("b", {}, "–"), "no run has an objective yet");
  const best = done.reduce((a, b) => (b.cells[objectiveAt] > a.cells[objectiveAt] ? b : a));
  return el("div", { class: "tile wide" }, el("b", {}, `${columnFormat([best.cells[objectiveAt]])(best.cells[objectiveAt])}  best objective`),
    linkTo(best), el("br"), el("span", { class: "soft code" }, best.overrides));
}

function linkTo(run) {
  return run.link ? el("a", { href: run.link, title: run.name }, run.name) : el("span", { title: run.name }, run.name);
}

function showFailures() {
  const lost = runs.filter((run) => run.failure);
  const odd = runs.filter((run) => run.problems.length);
  if (lost.length) {
    const item = (run) => el("li", {}, el("b", { class: STATES.includes(run.state) ? run.state : "unknown" }, run.state), " ", several ? linkTo(run) : null,
      el("div", {}, run.failure), several && run.overrides ? el("div", { class: "soft code" }, run.overrides) : null);
    const rest = lost.slice(10);
    section(several ? `What failed (${lost.length})` : "Why it is not done", "",
      el("ul", { class: "failures" }, ...lost.slice(0, 10).map(item)),
      rest.length ? el("details", {}, el("summary", {}, `${rest.length} more`), el("ul", { class: "failures" }, ...rest.map(item))) : null);
  }
  if (odd.length + data.problems.length) {
    const lines = odd.flatMap((run) => run.problems.map((problem) => el("li", {}, several ? `${run.name}: ` : "", problem)));
    document.getElementById("main").append(el("details", {}, el("summary", { class: "note" }, `What could not be read (${lines.length + data.problems.length})`),
      el("ul", { class: "note" }, ...data.problems.map((problem) => el("li", {}, problem)), ...lines)));
  }
}

function showRuns() {
  const host = section("Runs", "Sort by a heading, filter below it; every chart shows the rows that are left, the first six of them in colour.");
  table = new Table({
    caption: "Runs", sortKey: "objective",
    columns: [{ key: "run", shown: true }, ...columns.map((column) => ({ ...column, long: column.key === "reason" }))],
    rows: runs.map((run, id) => ({ id, cells: [run.name, ...run.cells],
      head: (place) => [el("span", { class: `swatch c${place < TOP ? place : ""}` }), linkTo(run)] })),
    onChange: (ids) => { left = ids; redraw(); },
  });
  host.append(table.node);
}

function showRepeats() {
  if (!points.some((point) => point.runs.length > 1)) return;
  const keys = data.parameters;
  const column = (group) => (key) => ({ key, group, shown: true });
  const host = section("Repeats", "Runs that differ only in the seed: the mean of their objectives ± its standard error.");
  host.append(new Table({
    caption: "Repeats", sortKey: MEAN,
    columns: [...[MEAN, "error", "finished", "repeats"].map(column("result")), ...keys.map(column("setting"))],
    rows: points.map((point, id) => ({ id,
      cells: [point.mean, point.error, point.n, point.runs.length, ...keys.map((key) => point.settings[key] ?? null)],
      head: () => [meanAndError(point.mean, point.error)] })),
  }).node);
}

function showCurves() {
  const names = Object.keys(data.curves.axes);
  if (!names.length) {
    section("Curves", "No numbers yet: no run has written a row that can be read.");
    return;
  }
  const note = data.curves.leftOut.length ? `Left out of a page on so many runs: ${data.curves.leftOut.join(", ")}.` : "";
  const groups = several ? names.map((name) => [name, [name]]) : grouped(names);
  const first = groups.filter(([title]) => /^(accuracy|energy|cost|relaxation)/.test(title));
  const rest = groups.filter((group) => !first.includes(group));
  const cards = (list) => el("div", { class: "charts" }, ...list.map(([title, members]) => curveCard(title, members)));
  section("Curves", note, cards(first), rest.length ? el("details", {}, el("summary", {}, plural(rest.length, "more chart")), cards(rest)) : null);
}

/** Metrics that share a chart on the page of one run: those of a prefix, a unit and an axis. */
function grouped(names) {
  const found = new Map();
  for (const name of names) {
    const [head, tail = ""] = name.split(/\/(.*)/s);
    const kind = head === "relaxation" || head === "time" ? ` ${tail.split("_").pop()}` : "";
    const title = `${head}${kind}`;
    const key = `${title}\n${data.curves.axes[name]}`;
    found.set(key, [...(found.get(key) || []), name]);
  }
  return [...found].map(([key, members]) => [key.split("\n")[0], members]);
}

function curveCard(title, members) {
  const kind = (i) => (i < TOP ? `c${i}` : "grey");
  const tail = (name) => name.split(/\/(.*)/s)[1] || name;
  const series = several
    ? () => left.map((id, place) => lineOf(id, members[0], runs[id].name, kind(place))).filter(Boolean)
    : () => members.map((name, i) => lineOf(0, name, name, kind(i))).filter(Boolean);
  return chartCard(title, (box) => lineChart(box, title, data.curves.axes[members[0]], series),
    several ? null : legend(members.slice(0, TOP).map((name, i) => ({ kind: kind(i), label: tail(name) }))
      .concat(members.length > TOP ? [{ kind: "grey", label: `${members.length - TOP} more` }] : [])));
}

function lineOf(id, name, label, kind) {
  const found = data.curves.of[id][name];
  return found && { label: several && runs[id].overrides ? `${label}\n${runs[id].overrides}` : label, x: found[0], y: found[1], kind };
}

function showParameters() {
  const keys = data.parameters;
  if (!keys.length) return;
  const varied = keys.filter((key) => points.length > 1);
  const drawn = () => {
    const open = new Set(left);
    return points.filter((point) => point.runs.some((id) => open.has(id)));
  };
  const brush = (key, text) => table.setFilter(key, text);
  const across = varied.slice(0, AXES);
  const wide = chartCard("From settings to objective", (box) => parallelChart(box, across, drawn, brush),
    legend([{ kind: "q0", label: "lowest tenth" }, { kind: "q9", label: "highest tenth" }]));
  section("Parallel coordinates", "Drag along an axis to filter by it; click its name to take the filter back.", el("div", { class: "across" }, wide));
  section("A plot per parameter", "A dot a point: the mean of its repeats, the bar its standard error; a cross on the axis is a point without any result.",
    el("div", { class: "charts" }, ...varied.map((key) => chartCard(key, (box) => parameterChart(box, key, drawn(), "objective")))));
}

function showSettings() {
  if (!data.shared.length && !data.facts.length) return;
  const list = (pairs) => el("table", { class: "settings" }, el("tbody", {}, ...pairs.map(([key, value]) =>
    el("tr", {}, el("th", { scope: "row" }, key), el("td", { class: "code long" }, value === null ? "null" : shown(value))))));
  const facts = data.facts.length ? list(data.facts) : null;
  const overrides = !several && runs[0].overrides ? el("p", {}, "Overrides: ", el("code", {}, runs[0].overrides)) : null;
  section(several ? "Settings that all runs share" : "The run", "", overrides, facts,
    data.shared.length ? el("details", {}, el("summary", {}, plural(data.shared.length, "setting")), list(data.shared)) : null);
}

function showFoot() {
  const links = several ? null : el("span", {}, " Folder: ", linkTo(runs[0]), ".");
  document.getElementById("foot").append(el("p", { class: "note" }, `Made by eqprop's report on ${data.made} of ${plural(runs.length, "run")}.`, links));
}
