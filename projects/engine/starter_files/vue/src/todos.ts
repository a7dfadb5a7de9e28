export interface Todo {
  readonly id: number;
  readonly title: string;
  readonly done: boolean;
}

export const MAX_TITLE = 200;

/** The list with one more todo at its end. Spaces are trimmed; a title of nothing else adds none. */
export function added(todos: readonly Todo[], title: string): readonly Todo[] {
  const trimmed = title.trim().slice(0, MAX_TITLE);
  return trimmed ? [...todos, { id: nextId(todos), title: trimmed, done: false }] : todos;
}

export function toggled(todos: readonly Todo[], id: number): readonly Todo[] {
  return todos.map((todo) => (todo.id === id ? { ...todo, done: !todo.done } : todo));
}

export function removed(todos: readonly Todo[], id: number): readonly Todo[] {
  return todos.filter((todo) => todo.id !== id);
}

export function withoutDone(todos: readonly Todo[]): readonly Todo[] {
  return todos.filter((todo) => !todo.done);
}

export function countLeft(todos: readonly Todo[]): number {
  return todos.filter((todo) => !todo.done).length;
}

/** The todos that a text of ours holds. What else may be stored there, by hand or by an older version, is dropped. */
export function parsed(text: string): readonly Todo[] {
  let value: unknown;
  try {
    value = JSON.parse(text);
  } catch {
    return [];
  }
  const found = Array.isArray(value) ? value.filter(isTodo) : [];
  return found.filter((todo, index) => found.findIndex((other) => other.id === todo.id) === index);
}

function isTodo(value: unknown): value is Todo {
  if (typeof value !== "object" || value === null) {
    return false;
  }
  const { id, title, done } = value as Partial<Record<keyof Todo, unknown>>;
  return Number.isSafeInteger(id) && typeof title === "string" && typeof done === "boolean";
}

function nextId(todos: readonly Todo[]): number {
  return todos.reduce((highest, todo) => Math.max(highest, todo.id), 0) + 1;
}
