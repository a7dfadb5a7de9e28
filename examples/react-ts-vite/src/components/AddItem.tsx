import { type FormEvent, useState } from "react";

interface Props {
  onAdd: (name: string) => void;
}

export function AddItem({ onAdd }: Props) {
  const [name, setName] = useState("");

  function submit(event: FormEvent) {
    event.preventDefault();
    onAdd(name);
    setName("");
  }

  return (
    <form onSubmit={submit}>
      <input aria-label="New item" value={name} onChange={(event) => setName(event.target.value)} />
      <button type="submit">Add</button>
    </form>
  );
}
