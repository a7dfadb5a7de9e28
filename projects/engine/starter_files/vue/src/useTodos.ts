import { ref, watch } from "vue";

import { load, save } from "./storage";
import { added, removed, toggled, withoutDone } from "./todos";

/** The list, kept in the browser, and all that can be done with it. */
export function useTodos() {
  const todos = ref(load());
  watch(todos, save);

  return {
    todos,
    add(title: string) {
      todos.value = added(todos.value, title);
    },
    toggle(id: number) {
      todos.value = toggled(todos.value, id);
    },
    remove(id: number) {
      todos.value = removed(todos.value, id);
    },
    clearDone() {
      todos.value = withoutDone(todos.value);
    },
  };
}
