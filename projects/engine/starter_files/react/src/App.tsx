import { useRef } from "react";

import { AddTodo } from "./components/AddTodo";
import { TodoRow } from "./components/TodoRow";
import { focusNeighbour } from "./focus";
import { countLeft } from "./todos";
import { useTodos } from "./useTodos";

const TITLE = "%%title:js%%";

export function App() {
  const { todos, add, toggle, remove, clearDone } = useTodos();
  const input = useRef<HTMLInputElement>(null);
  const left = countLeft(todos);

  function removeRow(id: number, row: Element | null) {
    focusNeighbour(row, input.current);
    remove(id);
  }

  return (
    <main className="app">
      <h1 dir="auto">{TITLE}</h1>
      <div className="card">
        <AddTodo input={input} onAdd={add} />
        {todos.length === 0 && <p className="empty">Nothing here yet. Add the first thing to do.</p>}
        {/* The role stays although the list has no bullets: some screen readers would no longer call it a list. */}
        <ul className="todos" role="list" aria-label="Todos">
          {todos.map((todo) => (
            <TodoRow
              key={todo.id}
              todo={todo}
              onToggle={() => toggle(todo.id)}
              onRemove={(row) => removeRow(todo.id, row)}
            />
          ))}
        </ul>
        <footer className="summary">
          <p role="status">{left} left</p>
          {left < todos.length && (
            <button type="button" onClick={clearDone}>
              Clear completed
            </button>
          )}
        </footer>
      </div>
    </main>
  );
}
