import assert from "node:assert/strict";
import { test } from "node:test";

import { checkedFields, MAX_TITLE, TodoStore } from "../src/todos.js";

test("the store lists what was added, the oldest first", () => {
  const store = new TodoStore();
  const milk = store.add({ title: "Milk" });
  const tea = store.add({ title: "Tea", done: true });

  assert.deepEqual(store.list(), [milk, tea]);
  assert.equal(milk.done, false);
});

test("a change leaves the other fields as they are", () => {
  const store = new TodoStore();
  const milk = store.add({ title: "Milk" });

  assert.deepEqual(store.change(milk.id, { done: true }), { ...milk, done: true });
  assert.deepEqual(store.get(milk.id), { ...milk, done: true });
});

test("what was removed is not there any more", () => {
  const store = new TodoStore();
  const { id } = store.add({ title: "Milk" });

  store.remove(id);

  assert.throws(() => store.get(id), { status: 404 });
  assert.throws(() => store.remove(id), { status: 404 });
});

test("titles are trimmed", () => {
  assert.deepEqual(checkedFields({ title: " Milk " }, { isNew: true }), { title: "Milk" });
});

for (const [what, body] of Object.entries({
  "no object": [],
  null: null,
  "no title": {},
  "an empty title": { title: " " },
  "a title that is no text": { title: 1 },
  "a title that is too long": { title: "x".repeat(MAX_TITLE + 1) },
  "done as a text": { title: "Milk", done: "yes" },
  "an unknown field": { title: "Milk", owner: "me" },
})) {
  test(`a new todo is refused with ${what}`, () => {
    assert.throws(() => checkedFields(body, { isNew: true }), { status: 422, code: "invalid" });
  });
}

test("a change has to change something", () => {
  assert.throws(() => checkedFields({}, { isNew: false }), { status: 422 });
});
