// Buttons that copy the text of the element that `data-copy` names. They do nothing without JavaScript, so they are
// hidden until this script has loaded.
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
  const before = label.textContent;
  try {
    await navigator.clipboard.writeText(source.textContent.trim());
    label.textContent = "Copied";
  } catch {
    // No permission, or no HTTPS: select the text, to be copied by hand.
    getSelection().selectAllChildren(source);
    label.textContent = "Selected: copy it now";
  }
  setTimeout(() => { label.textContent = before; }, 2500);
}

bind(document);
document.addEventListener("htmx:load", (event) => bind(event.target));
