"use strict";
(() => {
  const root = document.documentElement;
  const button = document.getElementById("theme");
  const modes = ["auto", "dark", "light"];
  const names = { auto: "system", dark: "dark", light: "light" };
  const kept = () => {
    try { return localStorage.getItem("cloakonnx-theme"); } catch { return null; }
  };
  const show = (mode) => {
    if (mode === "auto") root.removeAttribute("data-theme");
    else root.setAttribute("data-theme", mode);
    button.textContent = `Theme: ${names[mode]}`;
    button.dataset.mode = mode;
    try { localStorage.setItem("cloakonnx-theme", mode); } catch { /* a file may have no storage */ }
  };
  show(modes.includes(kept()) ? kept() : "auto");
  button.hidden = false;
  button.addEventListener("click", () => show(modes[(modes.indexOf(button.dataset.mode) + 1) % modes.length]));

  const value = (row, column) => {
    const cell = row.cells[column];
    const number = Number(cell.dataset.sort);
    return cell.dataset.sort !== undefined && !Number.isNaN(number) ? number : cell.textContent.trim();
  };
  const compare = (a, b) => {
    if (typeof a === "number" && typeof b === "number") return a - b;
    if (typeof a === "number") return -1;
    if (typeof b === "number") return 1;
    return a.localeCompare(b, "en", { numeric: true });
  };
  for (const table of document.querySelectorAll("table.sortable")) {
    const heads = [...table.tHead.rows[0].cells];
    heads.forEach((head, column) => {
      head.querySelector("button").addEventListener("click", () => {
        const rising = head.getAttribute("aria-sort") !== "ascending";
        heads.forEach((other) => other.removeAttribute("aria-sort"));
        head.setAttribute("aria-sort", rising ? "ascending" : "descending");
        const body = table.tBodies[0];
        const rows = [...body.rows].map((row, at) => ({ row, at, key: value(row, column) }));
        rows.sort((a, b) => (rising ? 1 : -1) * compare(a.key, b.key) || a.at - b.at);
        body.append(...rows.map((each) => each.row));
      });
    });
  }

  // Long lists stay closed in print: they are in the files.
  const short = (each) => each.querySelectorAll("tbody tr").length <= 100;
  let opened = [];
  addEventListener("beforeprint", () => {
    opened = [...document.querySelectorAll("details:not([open])")].filter(short);
    opened.forEach((each) => { each.open = true; });
  });
  addEventListener("afterprint", () => opened.forEach((each) => { each.open = false; }));
})();
