// Sorts tables by a click on a column's name, and filters the rows of all tables and the lines of all figures.
(() => {
  const value = (row, column) => row.cells[column].dataset.value ?? "";
  const text = (row, column) => (column === 0 ? row.dataset.policy : row.cells[column].textContent.trim());

  function sort(header) {
    const table = header.closest("table"), column = header.cellIndex, body = table.tBodies[0], rows = [...body.rows];
    const numeric = rows.some((row) => value(row, column) !== "");
    const before = header.getAttribute("aria-sort");
    const order = before === "none" ? (numeric ? "descending" : "ascending") : before === "ascending" ? "descending" : "ascending";
    const sign = order === "ascending" ? 1 : -1;
    const compare = (a, b) => {
      if (!numeric) return sign * (Number(text(a, column) > text(b, column)) - Number(text(a, column) < text(b, column)));
      const [x, y] = [value(a, column), value(b, column)];
      if (x === "" || y === "") return (x === "") - (y === "");  // rows without a number stay at the end
      return sign * (Number(x) - Number(y));
    };
    body.append(...rows.sort(compare));
    for (const other of header.parentElement.cells) other.setAttribute("aria-sort", other === header ? order : "none");
  }

  function filter() {
    const chosen = (name) => document.getElementById(`filter-${name}`)?.value ?? "";
    const words = chosen("policy").toLowerCase().split(/\s+/).filter(Boolean);
    const wanted = (name) => !words.length || words.some((word) => name.toLowerCase().includes(word));
    const shown = new Set(), all = new Set();
    for (const section of document.querySelectorAll("section[data-task]")) {
      section.hidden = ["task", "pool"].some((name) => chosen(name) && section.dataset[name] !== chosen(name));
    }
    for (const row of document.querySelectorAll("tr[data-policy]")) {
      const name = row.dataset.policy;
      row.hidden = !wanted(name) || (chosen("access") && row.dataset.access !== chosen("access"));
      if (row.closest("[hidden]:not(tr)")) continue;
      all.add(name);
      if (!row.hidden) shown.add(name);
    }
    for (const mark of document.querySelectorAll(".plot [data-policy]")) mark.classList.toggle("dim", !shown.has(mark.dataset.policy));
    for (const map of document.querySelectorAll("figure[data-policy]")) map.hidden = !shown.has(map.dataset.policy);
    document.getElementById("shown").value = `${shown.size} of ${all.size} policies`;
  }

  document.addEventListener("click", (event) => {
    const button = event.target.closest("th button");
    if (button) sort(button.closest("th"));
  });
  const tools = document.querySelector(".tools");
  tools.hidden = false;
  tools.addEventListener("input", filter);
  tools.addEventListener("submit", (event) => event.preventDefault());
  filter();
})();
