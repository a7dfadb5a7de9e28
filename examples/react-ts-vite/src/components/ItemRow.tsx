import type { Item } from "../shoppingList";

interface Props {
  item: Item;
  onToggle: () => void;
}

export function ItemRow({ item, onToggle }: Props) {
  return (
    <li className={item.bought ? "bought" : undefined}>
      <label>
        <input type="checkbox" checked={item.bought} onChange={onToggle} /> {item.name}
      </label>
    </li>
  );
}
