import type { Todo } from "../todos";

interface Props {
  todo: Todo;
  onToggle: () => void;
  onRemove: (row: Element | null) => void;
}

export function TodoRow({ todo, onToggle, onRemove }: Props) {
  return (
    <li className="todo">
      <label>
        <input type="checkbox" checked={todo.done} onChange={onToggle} />
        <span dir="auto">{todo.title}</span>
      </label>
      <button
        type="button"
        aria-label={`Remove ${todo.title}`}
        title="Remove"
        onClick={(event) => onRemove(event.currentTarget.closest("li"))}
      >
        <svg aria-hidden="true" width="14" height="14" viewBox="0 0 14 14" fill="none" stroke="currentColor">
          <path d="M2 2l10 10M12 2L2 12" strokeWidth="2" strokeLinecap="round" />
        </svg>
      </button>
    </li>
  );
}
