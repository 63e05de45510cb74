const PAGE_ROWS = 200;

/** A table that sorts and filters by any column.
 *
 *  columns: [{key, shown, long, group}], the first of them heads the rows;
 *  rows: [{id, cells, head(place) => what the row's head shows}];
 *  onChange(ids): called with the rows that are left, in order. */
class Table {
  constructor({ columns, rows, caption, sortKey, onChange }) {
    Object.assign(this, { columns, rows, onChange });
    this.sort = { index: Math.max(columns.findIndex((c) => c.key === sortKey), 0), sign: -1 };
    this.filters = columns.map(() => "");
    this.search = "";
    this.limit = PAGE_ROWS;
    this.formats = columns.map((column, i) =>
      column.group === "result" ? columnFormat(rows.map((row) => row.cells[i])) : shown);
    for (const row of rows) row.text = row.cells.map(words).join("\n");
    this.numeric = columns.map((_, i) => rows.some((row) => typeof row.cells[i] === "number"));
    this.head = el("thead");
    this.body = el("tbody");
    this.count = el("span", { class: "soft", role: "status" });
    this.more = el("button", { type: "button", class: "more", onclick: () => this.showAll() }, "Show all");
    const box = el("div", { class: "scroll", tabindex: "0", role: "region", "aria-label": caption },
      el("table", { "aria-label": caption }, this.head, this.body));
    this.node = el("div", {}, this.controls(caption), this.picker(), box, el("div", { class: "bar" }, this.more));
    this.build();
    this.update();
  }

  controls(caption) {
    this.searchBox = el("input", {
      type: "search", placeholder: "Search all columns", "aria-label": `Search ${caption}`,
      oninput: (event) => { this.search = event.target.value; this.update(); },
    });
    const clear = el("button", { type: "button", onclick: () => this.clear() }, "Clear filters");
    return el("div", { class: "bar" }, this.searchBox, clear, this.count);
  }

  /** Which columns are shown. */
  picker() {
    const boxes = this.columns.slice(1).map((column) => el("label", {},
      el("input", {
        type: "checkbox", checked: column.shown,
        onchange: (event) => { column.shown = event.target.checked; this.build(); this.update(); },
      }), ` ${column.key}`));
    const help = "Filters: a word, =word, !word, or numbers: >0.9  <=1e-3  0.1..0.5";
    return el("details", {}, el("summary", { class: "note" }, `Columns (${this.columns.length}) and how to filter`),
      el("p", { class: "note" }, help), el("div", { class: "columns" }, ...boxes));
  }

  build() {
    const heads = this.columns.map((column, i) => {
      if (!column.shown) return null;
      const input = el("input", {
        type: "text", value: this.filters[i], "aria-label": `Filter by ${column.key}`,
        placeholder: this.numeric[i] ? ">…" : "filter", autocomplete: "off", spellcheck: "false",
        "data-key": column.key,
        oninput: (event) => { this.filters[i] = event.target.value; this.update(); },
      });
      const button = el("button", { type: "button", class: "sort", title: `Sort by ${column.key}`,
        onclick: () => this.sortBy(i) }, column.key);
      return el("th", { scope: "col", class: i && this.numeric[i] ? "num" : "", "data-key": column.key }, button, input);
    });
    this.head.replaceChildren(el("tr", {}, ...heads.filter(Boolean)));
  }

  sortBy(i) {
    const first = this.numeric[i] ? -1 : 1;
    this.sort = { index: i, sign: this.sort.index === i ? -this.sort.sign : first };
    this.update();
  }

  /** Put a text into a column's filter, as if typed. */
  setFilter(key, text) {
    const i = this.columns.findIndex((column) => column.key === key);
    if (i < 0) return;
    this.filters[i] = text;
    this.columns[i].shown = true;
    this.build();
    this.update();
  }

  filterText(key) {
    return this.filters[this.columns.findIndex((column) => column.key === key)] || "";
  }

  clear() {
    this.filters.fill("");
    this.search = this.searchBox.value = "";
    this.build();
    this.update();
  }

  showAll() {
    this.limit = Infinity;
    this.update();
  }

  update() {
    const tests = [];
    this.filters.forEach((text, i) => {
      const test = filterOf(text);
      const input = [...this.head.querySelectorAll("input")].find((n) => n.dataset.key === this.columns[i].key);
      if (input) input.setAttribute("aria-invalid", String(test === undefined));
      if (test) tests.push((row) => test(row.cells[i]));
    });
    const wanted = this.search.trim().toLowerCase();
    if (wanted) tests.push((row) => row.text.includes(wanted));
    const { index, sign } = this.sort;
    this.left = this.rows.filter((row) => tests.every((test) => test(row)));
    this.left.sort((a, b) => compareCells(a.cells[index], b.cells[index], sign) || a.id - b.id);
    for (const th of this.head.querySelectorAll("th[data-key]")) {
      if (th.dataset.key !== this.columns[index].key) th.removeAttribute("aria-sort");
      else th.setAttribute("aria-sort", sign > 0 ? "ascending" : "descending");
    }
    this.body.replaceChildren(...this.left.slice(0, this.limit).map((row, place) => this.rowNode(row, place)));
    const all = this.rows.length;
    this.count.textContent = this.left.length === all ? `${all} rows` : `${this.left.length} of ${all} rows`;
    this.more.hidden = this.left.length <= this.limit;
    this.more.textContent = `Show all ${this.left.length} (the first ${PAGE_ROWS} are shown)`;
    if (this.onChange) this.onChange(this.left.map((row) => row.id));
  }

  rowNode(row, place) {
    const cells = this.columns.map((column, i) => {
      if (i === 0) return el("th", { scope: "row", class: "name" }, ...row.head(place));
      if (!column.shown) return null;
      const value = row.cells[i];
      const state = column.key === "state" ? ` ${STATES.includes(value) ? value : "unknown"}` : "";
      const kind = this.numeric[i] ? "num" : column.long ? "long" : "";
      return el("td", { class: kind + state, title: column.long ? value : null }, this.formats[i](value));
    });
    return el("tr", {}, ...cells.filter(Boolean));
  }
}

const STATES = ["done", "failed", "killed", "running", "interrupted", "pruned", "unknown"];
