"use strict";
// Sorting, filtering and the address of a view. Without this script the page is plain tables, in order of rank.
(() => {
  const all = (selector, root = document) => [...root.querySelectorAll(selector)];
  const one = (selector, root = document) => root.querySelector(selector);
  const filters = one("#filters");
  const query = one("#query");
  const selects = { task: one("#task"), machine: one("#machine") };
  const count = one("#count");
  const tables = new Map(all("table[data-sortable]").map((table) => [table.id, table]));
  const rows = all("tbody.row").map((row) => ({ row, block: row.closest("[data-block]"), text: row.textContent.toLowerCase() }));
  const original = new Map();
  const ofRows = all("[data-row]"); // curves, legends and numbers
  const AXES = ["seconds", "samples", "steps"];

  // ---- sorting: every sortable heading holds a button, so the keyboard sorts as the mouse does
  function value(row, column, numeric) {
    const cell = one(`[data-column="${column}"]`, row);
    if (!numeric) return cell.textContent.trim().toLowerCase();
    return cell.dataset.value === undefined ? null : Number(cell.dataset.value);
  }

  function sort(table, column, direction) {
    const heading = all("thead th[data-column]", table).find((th) => th.dataset.column === column);
    if (!heading) return;
    const numeric = heading.dataset.sort === "number";
    const sign = direction === "descending" ? -1 : 1;
    const keyed = all("tbody.row", table).map((row) => ({ row, key: value(row, column, numeric) }));
    keyed.sort((a, b) => {
      if (a.key === null || b.key === null) return (a.key === null) - (b.key === null); // not measured: last either way
      return sign * (numeric ? a.key - b.key : a.key.localeCompare(b.key));
    });
    table.append(...keyed.map((each) => each.row));
    all("thead th[aria-sort]", table).forEach((th) => th.removeAttribute("aria-sort"));
    heading.setAttribute("aria-sort", direction);
    table.dataset.sorted = `${column}.${direction}`;
  }

  function unsort(table) {
    const { rows: ranked, heading } = original.get(table);
    table.append(...ranked);
    all("thead th[aria-sort]", table).forEach((th) => th.removeAttribute("aria-sort"));
    heading?.setAttribute("aria-sort", "ascending");
    table.dataset.sorted = table.dataset.initial;
  }

  for (const table of tables.values()) {
    table.dataset.initial = table.dataset.sorted;
    original.set(table, { rows: all("tbody.row", table), heading: one("thead th[aria-sort]", table) });
    for (const heading of all("thead th[data-sort]", table)) {
      const button = document.createElement("button");
      button.type = "button";
      button.append(...one(".name", heading).childNodes);
      one(".name", heading).append(button);
      button.addEventListener("click", () => {
        sort(table, heading.dataset.column, heading.getAttribute("aria-sort") === "ascending" ? "descending" : "ascending");
        keep();
      });
    }
  }

  // ---- filtering: a row is shown if its block fits the choices and it holds every word of the query
  function filter() {
    const words = query.value.toLowerCase().split(/\s+/).filter(Boolean);
    let shown = 0;
    for (const { row, block, text } of rows) {
      const about = (name) => row.dataset[name] ?? block.dataset[name];
      const chosen = Object.entries(selects).every(([name, select]) => !select.value || [undefined, select.value].includes(about(name)));
      const context = block.dataset.text ?? "";
      row.hidden = !(chosen && words.every((word) => text.includes(word) || context.includes(word)));
      shown += !row.hidden;
    }
    for (const block of all("[data-block]")) block.hidden = all("tbody.row", block).every((row) => row.hidden);
    for (const part of all("[data-part]")) part.hidden = all("[data-block]", part).every((block) => block.hidden);
    const out = new Set(rows.filter(({ row }) => row.hidden).map(({ row }) => row.id));
    for (const drawn of ofRows) drawn.toggleAttribute("hidden", out.has(drawn.dataset.row));
    const text = `${shown} of ${rows.length} rows shown`;
    if (count.value !== text) count.value = text;
    one("#nothing").hidden = shown > 0;
  }

  // ---- the horizontal axis of all curves
  function against(axis) {
    for (const radio of all(`input.x-${axis}`)) radio.checked = true;
    document.documentElement.dataset.axis = axis;
  }

  // ---- the address: a link to this view
  function keep() {
    const state = new URLSearchParams();
    if (query.value) state.set("q", query.value);
    for (const [name, select] of Object.entries(selects)) if (select.value) state.set(name, select.value);
    if (document.documentElement.dataset.axis !== AXES[0]) state.set("x", document.documentElement.dataset.axis);
    for (const [id, table] of tables) if (table.dataset.sorted !== table.dataset.initial) state.set(id, table.dataset.sorted);
    history.replaceState(null, "", `#${state}`);
  }

  function restore() {
    const state = new URLSearchParams(location.hash.includes("=") ? location.hash.slice(1) : "");
    query.value = state.get("q") ?? "";
    for (const [name, select] of Object.entries(selects)) {
      const wanted = state.get(name) ?? "";
      select.value = all("option", select).some((option) => option.value === wanted) ? wanted : "";
    }
    against(AXES.includes(state.get("x")) ? state.get("x") : AXES[0]);
    for (const [id, table] of tables) {
      const wanted = state.get(id) ?? table.dataset.initial;
      const [column, direction] = wanted.split(".");
      if (wanted === table.dataset.initial) unsort(table);
      else sort(table, column, direction === "descending" ? direction : "ascending");
    }
    filter();
  }

  // Choosing, or Enter in the search field, brings the first result into view; typing alone does not move the page.
  function reveal() {
    const first = one("[data-block]:not([hidden])");
    if (first && rows.some(({ row }) => row.hidden)) first.scrollIntoView();
  }

  const changed = () => { filter(); keep(); };
  query.addEventListener("input", changed);
  for (const select of Object.values(selects)) select.addEventListener("change", () => { changed(); reveal(); });
  filters.addEventListener("submit", (event) => { event.preventDefault(); changed(); reveal(); });
  filters.addEventListener("reset", (event) => {
    // Cleared within the click. A timer would wait for the next frame, which may be long in coming on a slow machine.
    event.preventDefault();
    query.value = "";
    for (const select of Object.values(selects)) select.value = "";
    changed();
  });
  for (const radio of all(".switch input")) radio.addEventListener("change", () => { against(radio.value); keep(); });
  for (const link of all('a[href^="#"]')) {
    link.addEventListener("click", (event) => { // go there without losing the address of the view
      const target = document.getElementById(link.hash.slice(1));
      event.preventDefault();
      target.tabIndex = -1;
      target.focus({ preventScroll: true });
      target.scrollIntoView();
    });
  }
  window.addEventListener("hashchange", restore);

  // ---- pointing at a row picks out its curve
  const curves = new Map(all("[data-block]").map((block) => [block, all(".series, .band, .keys [data-row]", block)]));
  const withCurve = new Set(all(".series").map((each) => each.dataset.row));
  for (const { row, block } of rows) {
    if (!withCurve.has(row.id)) continue;
    const drawn = curves.get(block);
    const dim = (on) => drawn.forEach((each) => each.classList.toggle("dim", on && each.dataset.row !== row.id));
    for (const name of ["mouseenter", "focusin"]) row.addEventListener(name, () => dim(true));
    for (const name of ["mouseleave", "focusout"]) row.addEventListener(name, () => dim(false));
  }

  // ---- a table laid out as cards is a table to a screen reader all the same
  const roles = { table: "table", thead: "rowgroup", tbody: "rowgroup", tr: "row", td: "cell", "thead th": "columnheader", "tbody th": "rowheader" };
  for (const table of all("table.cards")) {
    table.setAttribute("role", roles.table);
    for (const [selector, role] of Object.entries(roles)) for (const part of all(selector, table)) part.setAttribute("role", role);
  }

  if (matchMedia("(max-width: 40rem)").matches) one("#words").open = false; // a phone should not scroll past them first
  filters.hidden = false;
  restore();
})();
