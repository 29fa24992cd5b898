"use strict";
// Adds filters and copy buttons to a page that is complete without them.
(() => {
  const form = document.getElementById("filter");
  const grid = document.querySelector(".grid");
  const MOST = 20000; // names expanded from one range; beyond that it is not one of ours

  const expandRange = (before, ranges, after) =>
    ranges.split(",").flatMap((range) => {
      const [first, last = first] = range.split("-");
      const count = Number(last) - Number(first) + 1;
      if (!(count > 0 && count <= MOST)) return [before + range + after];
      return Array.from({ length: count }, (_, index) =>
        before + String(Number(first) + index).padStart(first.length, "0") + after);
    });
  const expand = (folded) =>
    folded.split(/, (?![^[]*\])/).flatMap((item) => {
      const parts = /^([^[]*)\[([0-9,-]+)\](.*)$/.exec(item);
      return parts ? expandRange(parts[1], parts[2], parts[3]) : [item];
    });

  const known = new WeakMap();
  const names = (element) => {
    if (!known.has(element)) {
      const folded = element.querySelector(".hosts");
      known.set(element, folded ? expand(folded.textContent.toLowerCase()) : null);
    }
    return known.get(element);
  };
  const hasHost = (element, wanted) => {
    if (!wanted) return true;
    const all = names(element);
    return all === null || all.some((name) => name.includes(wanted));
  };

  const filterGrid = (host, check, status) => {
    const columns = [...grid.tHead.rows[0].cells].map((cell) => cell.dataset.check);
    const hidden = columns.map((column) => Boolean(check && column && column !== check));
    for (const row of grid.rows) {
      const cells = [...row.cells];
      cells.forEach((cell, index) => { cell.hidden = hidden[index] && cell.colSpan === 1; });
      if (row.parentElement === grid.tHead) continue;
      const shown = cells.slice(1).filter((cell) => !cell.hidden);
      row.hidden = !hasHost(row, host) ||
        Boolean(status && !shown.some((cell) => cell.classList.contains(status)));
    }
  };

  const apply = () => {
    const host = form.elements.host.value.trim().toLowerCase();
    const check = form.elements.check.value;
    const status = form.elements.status.value;
    filterGrid(host, check, status);
    const selector = "#findings article, #waivers tbody tr, #checks tbody tr, #nodes tbody tr";
    for (const element of document.querySelectorAll(selector)) {
      const { check: ofCheck, status: ofStatus } = element.dataset;
      element.hidden = !hasHost(element, host) ||
        Boolean(check && !element.closest("#nodes") && !(ofCheck ?? "").split(" ").includes(check)) ||
        Boolean(status && ofStatus && ofStatus !== status);
    }
    for (const variant of document.querySelectorAll(".variant")) {
      variant.hidden = !hasHost(variant, host);
    }
    const all = [...document.querySelectorAll("#findings article")];
    form.elements.shown.value =
      `${all.filter((article) => !article.hidden).length} of ${all.length} findings`;
  };

  form.hidden = false;
  form.addEventListener("input", apply);
  form.addEventListener("change", apply);
  form.addEventListener("submit", (event) => event.preventDefault());
  form.addEventListener("reset", () => setTimeout(apply));
  apply();

  for (const block of document.querySelectorAll("pre")) {
    const button = document.createElement("button");
    button.type = "button";
    button.textContent = "Copy";
    button.addEventListener("click", async () => {
      try {
        await navigator.clipboard.writeText(block.textContent);
        button.textContent = "Copied";
      } catch {
        getSelection().selectAllChildren(block);
        button.textContent = "Selected";
      }
      setTimeout(() => { button.textContent = "Copy"; }, 2000);
    });
    const holder = document.createElement("div");
    holder.className = "command";
    block.replaceWith(holder);
    holder.append(block, button);
  }
})();
