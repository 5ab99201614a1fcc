// A click on the head of a column sorts the table by it, again the other way round.

for (const table of document.querySelectorAll("table.sortable")) {
  const heads = [...table.tHead.rows[0].cells];
  heads.forEach((head, column) => head.firstElementChild.addEventListener("click", () => {
    const up = head.getAttribute("aria-sort") !== "ascending";
    heads.forEach((other) => other.removeAttribute("aria-sort"));
    head.setAttribute("aria-sort", up ? "ascending" : "descending");
    const key = (row) => {
      const { value } = row.cells[column].dataset;
      return value === undefined ? row.cells[column].textContent.trim() : value === "" ? NaN : Number(value);
    };
    const compare = (a, b) => {
      if (typeof a === "string") return up ? a.localeCompare(b) : b.localeCompare(a);
      if (isNaN(a) || isNaN(b)) return isNaN(a) - isNaN(b); // what has no value stays last
      return up ? a - b : b - a;
    };
    table.tBodies[0].append(...[...table.tBodies[0].rows].sort((a, b) => compare(key(a), key(b))));
  }));
}
