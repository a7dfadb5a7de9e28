import assert from "node:assert/strict";
import { once } from "node:events";
import { afterEach, beforeEach, test } from "node:test";

import { createApp } from "../src/server.js";
import { TodoStore } from "../src/todos.js";

const JSON_HEADERS = { "Content-Type": "application/json" };
const UNKNOWN = "/todos/00000000-0000-4000-8000-000000000000";

let server, store, logged, url;

beforeEach(async () => {
  store = new TodoStore();
  logged = [];
  server = createApp({ store, log: (error) => logged.push(error) }).listen(0, "127.0.0.1");
  await once(server, "listening");
  url = `http://127.0.0.1:${server.address().port}`;
});

afterEach(() => {
  server.close();
  server.closeAllConnections();
});

async function send(method, path, body, headers = JSON_HEADERS) {
  const answer = await fetch(url + path, { method, body, headers: body === undefined ? {} : headers });
  const text = await answer.text();
  return { status: answer.status, headers: answer.headers, body: text ? JSON.parse(text) : undefined };
}

test("a todo is added, listed, changed and removed", async () => {
  const added = await send("POST", "/todos", '{"title": "Milk"}');
  assert.equal(added.status, 201);
  assert.equal(added.body.title, "Milk");

  const path = added.headers.get("location");
  assert.deepEqual((await send("GET", path)).body, added.body);
  assert.deepEqual((await send("GET", "/todos?page=1")).body, { todos: [added.body] });

  const changed = await send("PATCH", path, '{"done": true}');
  assert.deepEqual([changed.status, changed.body], [200, { ...added.body, done: true }]);

  const removed = await send("DELETE", path);
  assert.deepEqual([removed.status, removed.body], [204, undefined]);
  assert.equal((await send("GET", path)).status, 404);
});

test("it tells that it is well", async () => {
  assert.deepEqual((await send("GET", "/health")).body, { status: "ok" });
});

for (const [what, request, status, code] of [
  ["an unknown path", ["GET", "/nothing"], 404, "not_found"],
  ["an unknown todo", ["GET", UNKNOWN], 404, "not_found"],
  ["a change to an unknown todo", ["PATCH", UNKNOWN, '{"done": true}'], 404, "not_found"],
  ["another method", ["PUT", "/todos"], 405, "method_not_allowed"],
  ["no JSON", ["POST", "/todos", "title=Milk", { "Content-Type": "text/plain" }], 415, "not_json"],
  ["broken JSON", ["POST", "/todos", '{"title": '], 400, "malformed"],
  ["too much", ["POST", "/todos", JSON.stringify({ title: "x".repeat(70_000) })], 413, "too_large"],
  ["wrong fields", ["POST", "/todos", '{"__proto__": {}, "title": "Milk"}'], 422, "invalid"],
]) {
  test(`${what} is answered with ${status}`, async () => {
    const answer = await send(...request);

    assert.deepEqual([answer.status, answer.body.error.code], [status, code]);
    assert.deepEqual([store.list(), logged], [[], []]);
  });
}

test("a method that is not there is told with those that are", async () => {
  assert.equal((await send("PUT", "/todos")).headers.get("allow"), "GET, POST");
});

test("a failure of ours is logged, and not shown", async () => {
  store.list = () => {
    throw new Error("the database's password");
  };

  const answer = await send("GET", "/todos");

  assert.deepEqual([answer.status, answer.body.error.code], [500, "internal"]);
  assert.equal(JSON.stringify(answer.body).includes("password"), false);
  assert.equal(logged.length, 1);
});
