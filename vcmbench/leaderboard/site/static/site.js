// Sorts and filters tables, chooses two models to compare, and remembers the theme. Pages are whole without it.
"use strict";

// --- theme: set before the page is drawn -------------------------------------------------------

const remembered = (() => {
  try { return localStorage.getItem("vcmbench-theme"); } catch { return null; }
})();
if (remembered === "dark" || remembered === "light") {
  document.documentElement.dataset.theme = remembered;
}

function isDark() {
  const chosen = document.documentElement.dataset.theme;
  return chosen ? chosen === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;
}

function prepareTheme() {
  const button = document.getElementById("theme");
  const label = () => { button.textContent = isDark() ? "Light theme" : "Dark theme"; };
  button.addEventListener("click", () => {
    const theme = isDark() ? "light" : "dark";
    document.documentElement.dataset.theme = theme;
    try { localStorage.setItem("vcmbench-theme", theme); } catch { /* from disk, or forbidden */ }
    label();
  });
  label();
  button.hidden = false;
}

// --- sorting -----------------------------------------------------------------------------------

function keyOf(cell) {
  const value = cell.dataset.value;
  if (value !== undefined) return Number(value);
  return cell.classList.contains("number") ? null : cell.textContent.trim();
}

function compareKeys(a, b) {
  return typeof a === "number" && typeof b === "number" ? a - b : String(a).localeCompare(String(b));
}

function sortBy(table, column, descending) {
  const body = table.tBodies[0];
  const keyed = Array.from(body.rows, (row) => ({ row, key: keyOf(row.cells[column]) }));
  const known = keyed.filter(({ key }) => key !== null);
  known.sort((a, b) => (descending ? -1 : 1) * compareKeys(a.key, b.key));
  // What is not known is neither best nor worst: it comes last either way.
  body.append(...[...known, ...keyed.filter(({ key }) => key === null)].map(({ row }) => row));
}

function prepareSorting(table) {
  const heads = Array.from(table.tHead.rows[0].cells);
  heads.forEach((head, column) => {
    if (head.classList.contains("pick")) return;
    const unit = head.querySelector(".unit");
    const button = document.createElement("button");
    button.type = "button";
    button.append(...Array.from(head.childNodes).filter((node) => node !== unit));
    button.title = head.title;
    head.removeAttribute("title");
    head.prepend(button);
    button.addEventListener("click", () => {
      const descending = head.getAttribute("aria-sort") === "ascending";
      for (const other of heads) other.removeAttribute("aria-sort");
      head.setAttribute("aria-sort", descending ? "descending" : "ascending");
      sortBy(table, column, descending);
    });
  });
}

// --- filtering and choosing --------------------------------------------------------------------

function prepareBoard(board) {
  const tables = Array.from(board.querySelectorAll(".sortable"));
  const rows = Array.from(board.querySelectorAll("tbody tr"));
  const controls = board.querySelector(".controls");
  const find = controls.querySelector(".find");
  const track = controls.querySelector(".track");
  const filter = () => {
    const words = find.value.toLowerCase().split(/\s+/).filter(Boolean);
    let shown = 0;
    for (const row of rows) {
      const text = row.dataset.words.toLowerCase();
      const fits = words.every((word) => text.includes(word)) && (!track.value || row.dataset.track === track.value);
      row.hidden = !fits;
      shown += fits && tables[0].contains(row);
    }
    controls.querySelector(".count").textContent = `${shown} of ${tables[0].tBodies[0].rows.length} models`;
    board.querySelector(".none").hidden = shown > 0;
  };
  find.addEventListener("input", filter);
  track.addEventListener("change", filter);
  controls.addEventListener("submit", (event) => event.preventDefault());
  tables.forEach(prepareSorting);
  prepareChoice(board, controls.querySelector(".compare"));
  for (const cell of board.querySelectorAll(".pick")) cell.hidden = false;
  controls.hidden = false;
  filter();
}

function prepareChoice(board, link) {
  const page = link.getAttribute("href");
  const boxes = Array.from(board.querySelectorAll(".pick input"));
  let chosen = [];
  const update = (box) => {
    chosen = chosen.filter((other) => other !== box);
    if (box.checked) chosen.push(box);
    while (chosen.length > 2) chosen.shift().checked = false; // The latest two stay.
    const names = new URLSearchParams();
    chosen.forEach((other, index) => names.set(["first", "second"][index], other.value));
    link.href = chosen.length ? `${page}?${names}` : page;
    link.textContent = chosen.length === 2 ? `Compare ${chosen[0].value} and ${chosen[1].value}` : "Compare two models";
  };
  for (const box of boxes) {
    box.checked = false;
    box.addEventListener("change", () => update(box));
  }
}

// --- two models side by side -------------------------------------------------------------------

function prepareComparison(form) {
  const selects = [document.getElementById("first"), document.getElementById("second")];
  const names = Array.from(selects[0].options, (option) => option.value);
  const asked = new URLSearchParams(location.search);
  selects.forEach((select, index) => {
    const wanted = asked.get(select.id);
    select.value = names.includes(wanted) ? wanted : names[Math.min(index, names.length - 1)];
  });
  if (selects[0].value === selects[1].value && names.length > 1) {
    selects[1].value = names.find((name) => name !== selects[0].value);
  }
  const show = () => {
    const [first, second] = selects.map((select) => select.value);
    for (const cell of document.querySelectorAll(".comparison [data-model]")) {
      cell.hidden = cell.dataset.model !== first && cell.dataset.model !== second;
      cell.classList.remove("better");
    }
    for (const row of document.querySelectorAll(".comparison tr")) arrange(row, first, second);
    showCurves(first, second);
    document.getElementById("chosen").textContent = `${first} and ${second} are shown`;
  };
  for (const select of selects) select.addEventListener("change", show);
  form.addEventListener("submit", (event) => event.preventDefault());
  for (const table of document.querySelectorAll(".comparison")) table.classList.add("pair");
  form.hidden = false;
  show();
}

function arrange(row, first, second) {
  // The first model's column stands before the second's.
  const cell = (name) => Array.from(row.cells).find((one) => one.dataset.model === name);
  const [left, right, ratio] = [cell(first), cell(second), row.querySelector(".ratio")];
  row.cells[0].after(left);
  if (right !== left) left.after(right);
  ratio.hidden = right === left;
  if (row.parentNode.tagName === "THEAD") return;
  const [a, b] = [left, right].map((one) => (one.dataset.value === undefined ? NaN : Number(one.dataset.value)));
  ratio.textContent = a > 0 && b >= 0 ? `× ${(b / a).toPrecision(3)}` : "–";
  if (a < b) left.classList.add("better");
  if (b < a) right.classList.add("better");
}

function showCurves(first, second) {
  for (const curve of document.querySelectorAll(".curve[data-model]:not(.reference)")) {
    const name = curve.dataset.model;
    curve.classList.toggle("first", name === first);
    curve.classList.toggle("second", name === second && name !== first);
    curve.classList.toggle("away", name !== first && name !== second);
  }
  const legend = document.querySelector("#curves-legend ul");
  if (!legend) return;
  const [reference] = legend.children;
  const items = [["first", first], ["second", second]].map(([style, name]) => {
    const item = reference.cloneNode(true);
    item.querySelector("path").setAttribute("class", `curve ${style}`);
    item.lastChild.textContent = name;
    return item;
  });
  legend.replaceChildren(reference, ...items);
}

document.addEventListener("DOMContentLoaded", () => {
  prepareTheme();
  document.querySelectorAll(".board").forEach(prepareBoard);
  const form = document.getElementById("choose");
  if (form) prepareComparison(form);
});
