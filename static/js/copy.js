// Buttons that copy the text of the element that `data-copy` names. Without a script they would do nothing: they are
// hidden until this has come.
function bind(root) {
  for (const button of root.querySelectorAll("button[data-copy]:not([data-bound])")) {
    button.dataset.bound = "";
    button.hidden = false;
    button.addEventListener("click", () => copy(button));
  }
}

async function copy(button) {
  const source = document.getElementById(button.dataset.copy);
  const label = button.querySelector("span") ?? button;
  const said = label.textContent;
  try {
    await navigator.clipboard.writeText(source.textContent.trim());
    label.textContent = "Copied";
  } catch {
    // No permission, or no HTTPS: what is selected can be copied by hand.
    getSelection().selectAllChildren(source);
    label.textContent = "Selected: copy it now";
  }
  setTimeout(() => { label.textContent = said; }, 2500);
}

bind(document);
document.addEventListener("htmx:load", (event) => bind(event.target));
