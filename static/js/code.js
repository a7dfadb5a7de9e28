// Lines of a source file: a click on a number selects a line, with the shift key a range. Without JavaScript, the
// numbers are links to their lines.
const table = document.querySelector("table.source[data-page]");
const chosen = () => /^#L(\d+)(?:-L?(\d+))?$/.exec(location.hash);

function show(isNew) {
  for (const row of table.querySelectorAll(".chosen")) row.classList.remove("chosen");
  const found = chosen();
  if (!found) return;
  const [start, end] = [Number(found[1]), Number(found[2] || found[1])].sort((a, b) => a - b);
  const { first, last, page, total } = table.dataset;
  if ((start < first || start > last) && start >= 1 && start <= total) {
    const from = Math.floor((start - 1) / page) * page + 1;
    location.replace(`?from=${from}${location.hash}`);
    return;
  }
  for (let line = Math.max(start, first); line <= Math.min(end, last); line++) {
    document.getElementById(`L${line}`).classList.add("chosen");
  }
  if (isNew) document.getElementById(`L${start}`)?.scrollIntoView({ block: "center" });
}

const tree = document.querySelector(".tree");
const current = tree?.querySelector("[aria-current]");
if (current) tree.scrollTop += current.getBoundingClientRect().top - tree.getBoundingClientRect().top - tree.clientHeight / 2;

if (table) {
  table.addEventListener("click", (event) => {
    const link = event.target.closest(".num a");
    const found = chosen();
    if (!link || !event.shiftKey || !found) return;
    event.preventDefault();
    const [start, end] = [Number(found[1]), Number(link.textContent)].sort((a, b) => a - b);
    history.replaceState(null, "", `#L${start}-L${end}`);
    show(false);
  });
  addEventListener("hashchange", () => show(true));
  show(true);
}
