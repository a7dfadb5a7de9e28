import { useEffect, useState } from "react";

import { load, save } from "./storage";
import { added, removed, toggled, withoutDone } from "./todos";

/** The list, kept in the browser, and all that can be done with it. */
export function useTodos() {
  const [todos, setTodos] = useState(load);
  useEffect(() => save(todos), [todos]);

  return {
    todos,
    add: (title: string) => setTodos((now) => added(now, title)),
    toggle: (id: number) => setTodos((now) => toggled(now, id)),
    remove: (id: number) => setTodos((now) => removed(now, id)),
    clearDone: () => setTodos(withoutDone),
  };
}
