import { randomUUID } from "node:crypto";

import { RequestError } from "./errors.js";

export const MAX_TITLE = 200;

/** @typedef {{ id: string, title: string, done: boolean, createdAt: string }} Todo */

/** The todos, in memory: they are gone when the process ends. A database would take this class's place. */
export class TodoStore {
  /** @type {Map<string, Todo>} */
  #todos = new Map();

  /** @returns {Todo[]} the oldest first */
  list() {
    return [...this.#todos.values()];
  }

  /** @param {string} id */
  get(id) {
    const todo = this.#todos.get(id);
    if (!todo) {
      throw new RequestError(404, "not_found", `There is no todo ${id}.`);
    }
    return todo;
  }

  /** @param {{ title: string, done?: boolean }} fields */
  add({ title, done = false }) {
    const todo = { id: randomUUID(), title, done, createdAt: new Date().toISOString() };
    this.#todos.set(todo.id, todo);
    return todo;
  }

  /**
   * @param {string} id
   * @param {{ title?: string, done?: boolean }} fields
   */
  change(id, fields) {
    const todo = { ...this.get(id), ...fields };
    this.#todos.set(id, todo);
    return todo;
  }

  /** @param {string} id */
  remove(id) {
    this.get(id);
    this.#todos.delete(id);
  }
}

/**
 * The fields of a new todo, or of a change to one.
 * @param {unknown} body
 * @param {{ isNew: boolean }} options
 * @returns {any}
 */
export function checkedFields(body, { isNew }) {
  if (typeof body !== "object" || body === null || Array.isArray(body)) {
    throw invalid('Send a JSON object, as in {"title": "Buy milk"}.');
  }
  const { title, done, ...unknown } = /** @type {Record<string, unknown>} */ (body);
  const [surplus] = Object.keys(unknown);
  if (surplus !== undefined) {
    throw invalid(`There is no field ${JSON.stringify(surplus)}: send "title" and "done" only.`);
  }
  if (isNew ? title === undefined : title === undefined && done === undefined) {
    throw invalid(isNew ? 'The field "title" is missing.' : 'Send "title", "done" or both.');
  }
  return {
    ...(title !== undefined && { title: checkedTitle(title) }),
    ...(done !== undefined && { done: checkedDone(done) }),
  };
}

/** @param {unknown} title */
function checkedTitle(title) {
  const trimmed = typeof title === "string" ? title.trim() : "";
  if (!trimmed || trimmed.length > MAX_TITLE) {
    throw invalid(`"title" must be a text of 1 to ${MAX_TITLE} characters.`);
  }
  return trimmed;
}

/** @param {unknown} done */
function checkedDone(done) {
  if (typeof done !== "boolean") {
    throw invalid('"done" must be true or false.');
  }
  return done;
}

/** @param {string} message */
function invalid(message) {
  return new RequestError(422, "invalid", message);
}
