import { describe, expect, test } from "vitest";

import { added, countLeft, MAX_TITLE, parsed, removed, type Todo, toggled, withoutDone } from "./todos";

const milk: Todo = { id: 1, title: "Milk", done: false };
const bread: Todo = { id: 2, title: "Bread", done: true };

describe("adding", () => {
  test("puts a todo at the end, with an id of its own", () => {
    expect(added([milk, bread], " Tea ")).toEqual([milk, bread, { id: 3, title: "Tea", done: false }]);
  });

  test("leaves the list as it is for an empty title", () => {
    expect(added([milk], "  ")).toEqual([milk]);
  });

  test("cuts a title that is too long", () => {
    expect(added([], "x".repeat(MAX_TITLE + 1))[0]?.title).toHaveLength(MAX_TITLE);
  });
});

test("a todo is completed, and opened again", () => {
  const once = toggled([milk, bread], 1);

  expect(once).toEqual([{ ...milk, done: true }, bread]);
  expect(toggled(once, 1)).toEqual([milk, bread]);
});

test("only the removed todo goes", () => {
  expect(removed([milk, bread], 1)).toEqual([bread]);
});

test("what is done can be cleared away", () => {
  expect(withoutDone([milk, bread])).toEqual([milk]);
});

test("what is left is counted", () => {
  expect(countLeft([milk, bread])).toBe(1);
});

describe("reading what was stored", () => {
  test("gives the same todos back", () => {
    expect(parsed(JSON.stringify([milk, bread]))).toEqual([milk, bread]);
  });

  test.each(["", "not JSON", "null", "{}", '[1, null, {"id": "1", "title": "Milk", "done": false}]'])(
    "drops what is no todo: %s",
    (text) => {
      expect(parsed(text)).toEqual([]);
    },
  );

  test("keeps the first of two todos with one id", () => {
    expect(parsed(JSON.stringify([milk, { ...bread, id: 1 }]))).toEqual([milk]);
  });
});
