import { createServer } from "node:http";

import { RequestError } from "./errors.js";
import { readJson, sendJson } from "./json.js";
import { checkedFields, TodoStore } from "./todos.js";

/** @typedef {{ store: TodoStore, request: import("node:http").IncomingMessage, id: string }} Context */
/** @typedef {{ status: number, body?: unknown, headers?: Record<string, string> }} Answer */

/** @type {{ path: RegExp, methods: Record<string, (context: Context) => Answer | Promise<Answer>> }[]} */
const ROUTES = [
  { path: /^\/health$/, methods: { GET: () => ({ status: 200, body: { status: "ok" } }) } },
  { path: /^\/todos$/, methods: { GET: list, POST: add } },
  { path: /^\/todos\/(?<id>[^/]+)$/, methods: { GET: show, PATCH: change, DELETE: remove } },
];

/** A server that does not listen yet. */
export function createApp({ store = new TodoStore(), log = console.error } = {}) {
  return createServer(async (request, response) => {
    try {
      const { status, body, headers } = await answer(store, request);
      sendJson(response, status, body, headers);
    } catch (error) {
      const { status, code, message, headers } = asRequestError(error, log);
      sendJson(response, status, { error: { code, message } }, headers);
    }
  });
}

/**
 * @param {TodoStore} store
 * @param {import("node:http").IncomingMessage} request
 */
async function answer(store, request) {
  const [path] = (request.url ?? "/").split("?");
  for (const { path: pattern, methods } of ROUTES) {
    const match = pattern.exec(path);
    if (match) {
      return pick(methods, request.method)({ store, request, id: match.groups?.id ?? "" });
    }
  }
  throw new RequestError(404, "not_found", `There is nothing at ${path}. The todos are at /todos.`);
}

/**
 * @template T
 * @param {Record<string, T>} methods
 * @param {string} [method]
 */
function pick(methods, method = "") {
  if (!Object.hasOwn(methods, method)) {
    const allowed = Object.keys(methods).join(", ");
    throw new RequestError(405, "method_not_allowed", `Use ${allowed} here.`, { Allow: allowed });
  }
  return methods[method];
}

/** @param {Context} context */
function list({ store }) {
  return { status: 200, body: { todos: store.list() } };
}

/** @param {Context} context */
async function add({ store, request }) {
  const todo = store.add(checkedFields(await readJson(request), { isNew: true }));
  return { status: 201, body: todo, headers: { Location: `/todos/${todo.id}` } };
}

/** @param {Context} context */
function show({ store, id }) {
  return { status: 200, body: store.get(id) };
}

/** @param {Context} context */
async function change({ store, request, id }) {
  store.get(id);
  return { status: 200, body: store.change(id, checkedFields(await readJson(request), { isNew: false })) };
}

/** @param {Context} context */
function remove({ store, id }) {
  store.remove(id);
  return { status: 204 };
}

/**
 * What the client is told: its own mistake in full, and of ours only that it was ours.
 * @param {unknown} error
 * @param {(error: unknown) => void} log
 */
function asRequestError(error, log) {
  if (error instanceof RequestError) {
    return error;
  }
  log(error);
  return new RequestError(500, "internal", "Something failed on our side. Try again later.");
}
