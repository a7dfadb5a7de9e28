import { type FormEvent, type RefObject, useState } from "react";

import { MAX_TITLE } from "../todos";

interface Props {
  input: RefObject<HTMLInputElement | null>;
  onAdd: (title: string) => void;
}

export function AddTodo({ input, onAdd }: Props) {
  const [title, setTitle] = useState("");

  function submit(event: FormEvent) {
    event.preventDefault();
    onAdd(title);
    setTitle("");
    input.current?.focus();
  }

  return (
    <form className="add" onSubmit={submit}>
      <input
        ref={input}
        aria-label="New todo"
        autoComplete="off"
        enterKeyHint="done"
        maxLength={MAX_TITLE}
        name="title"
        placeholder="What needs doing?"
        value={title}
        onChange={(event) => setTitle(event.target.value)}
      />
      <button type="submit">Add</button>
    </form>
  );
}
