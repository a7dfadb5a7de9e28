import { useReducer } from "react";

import { AddItem } from "./components/AddItem";
import { ItemRow } from "./components/ItemRow";
import { firstItems, shoppingList } from "./shoppingList";

export function App() {
  const [items, dispatch] = useReducer(shoppingList, firstItems);
  const left = items.filter((item) => !item.bought).length;

  return (
    <main>
      <h1>Shopping list</h1>
      <AddItem onAdd={(name) => dispatch({ type: "added", name })} />
      <ul>
        {items.map((item) => (
          <ItemRow key={item.id} item={item} onToggle={() => dispatch({ type: "toggled", id: item.id })} />
        ))}
      </ul>
      <footer>
        <span>{left === 0 ? "All bought." : `${left} to buy.`}</span>
        <button type="button" onClick={() => dispatch({ type: "cleared" })}>
          Clear bought
        </button>
      </footer>
    </main>
  );
}
