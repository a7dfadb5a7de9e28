import { parsed, type Todo } from "./todos";

// Several apps may share one address, while they are developed for instance: each keeps to a key of its own.
const KEY = "%%package:js%%:todos";

export function load(): readonly Todo[] {
  try {
    return parsed(localStorage.getItem(KEY) ?? "");
  } catch {
    return []; // the browser keeps nothing for this page: the list lives as long as the page does
  }
}

export function save(todos: readonly Todo[]): void {
  try {
    localStorage.setItem(KEY, JSON.stringify(todos));
  } catch {
    // As above; or the storage is full.
  }
}
