/** How one run's phases relaxed, and what it mistook. */
function showDetails() {
  const { details } = data;
  if (!details.length) return;
  const place = el("div");
  const several = data.runs.length > 1;
  const choice = el("select", { id: "which", onchange: () => show(details[choice.value]) },
    ...details.map((d, i) => el("option", { value: i }, data.runs[d.run].name)));
  const note = several ? `Of one run: ${details.length === 1 ? "the best" : `one of the best ${details.length}`} that recorded them.` : "";
  section("Relaxations and mistakes", note,
    several ? el("div", { class: "bar" }, el("label", { for: "which" }, "Run"), choice) : null, place);
  const show = ({ relaxations, evaluation }) => {
    place.replaceChildren(relaxed(relaxations), evaluation ? evaluated(evaluation) : "");
  };
  show(details[0]);
}

function relaxed(relaxations) {
  const phases = [...new Set(relaxations.map((r) => r.phase))];
  const cards = phases.flatMap((phase) => ["energy", "residual"].map((name) => {
    const rows = relaxations.filter((r) => r.phase === phase && r[name].length);
    if (!rows.length) return null;
    const kind = (i) => `q${rows.length === 1 ? 4 : Math.round((9 * i) / (rows.length - 1))}`;
    const when = (r) => (r.epoch !== null ? `epoch ${shown(r.epoch)}` : `step ${shown(r.step)}`);
    const series = rows.map((r, i) => ({ label: `${when(r)}${r.step !== null ? ` (step ${shown(r.step)})` : ""}`, x: r[name][0], y: r[name][1], kind: kind(i) }));
    const ends = rows.length > 1 ? [0, rows.length - 1] : [0];
    const title = `${name}, ${phase} phase`;
    return chartCard(title, (box) => lineChart(box, title, "relaxation step", () => series),
      legend(ends.map((i) => ({ kind: kind(i), label: when(rows[i]) }))));
  })).filter(Boolean);
  return cards.length ? el("div", { class: "charts" }, ...cards) : "";
}

function evaluated({ confusion, classes, mistakes }) {
  const parts = [];
  if (confusion.length) parts.push(el("div", { class: "chart" }, el("h3", {}, "Confusion: true class down, predicted across"),
    el("div", { class: "box", tabindex: "0", role: "region", "aria-label": "Confusion matrix" }, confusionTable(confusion, classes))));
  if (mistakes.length) parts.push(el("div", { class: "chart" }, el("h3", {}, `The worst mistakes (${mistakes.length})`), mistakesTable(mistakes)));
  return el("div", { class: "charts pair" }, ...parts);
}

function confusionTable(confusion, classes) {
  const sums = confusion.map((row) => row.reduce((a, b) => a + (b || 0), 0));
  const cells = (row, i) => row.map((value, j) => {
    const share = sums[i] ? (value || 0) / sums[i] : 0;
    const text = `${classes[i]} taken for ${classes[j]}: ${shown(value)} (${(100 * share).toFixed(1)} %)`;
    const cell = el("td", { class: i === j ? "right" : "wrong" }, value ? shown(value) : "·");
    cell.style.setProperty("--share", `${value ? Math.round(12 + 60 * (i === j ? share : Math.min(1, 6 * share))) : 0}%`);
    cell.addEventListener("pointermove", (event) => showTip(event.clientX, event.clientY, text));
    cell.addEventListener("pointerleave", hideTip);
    return cell;
  });
  return el("table", { class: "confusion", "aria-label": "Confusion matrix" },
    el("thead", {}, el("tr", {}, el("td", {}), ...classes.map((name) => el("th", { scope: "col" }, name)))),
    el("tbody", {}, ...confusion.map((row, i) => el("tr", {}, el("th", { scope: "row" }, classes[i]), ...cells(row, i)))));
}

function mistakesTable(mistakes) {
  const names = [...new Set(mistakes.flatMap(Object.keys))];
  const formats = names.map((name) => columnFormat(mistakes.map((m) => m[name] ?? null)));
  return el("div", { class: "scroll", tabindex: "0", role: "region", "aria-label": "Mistakes" },
    el("table", {}, el("thead", {}, el("tr", {}, ...names.map((name) => el("th", { scope: "col", class: "num" }, name)))),
      el("tbody", {}, ...mistakes.map((m) => el("tr", {}, ...names.map((name, i) => el("td", { class: "num" }, formats[i](m[name] ?? null))))))));
}
