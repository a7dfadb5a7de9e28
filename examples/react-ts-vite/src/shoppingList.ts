export interface Item {
  id: number;
  name: string;
  bought: boolean;
}

export type Action = { type: "added"; name: string } | { type: "toggled"; id: number } | { type: "cleared" };

export const firstItems: Item[] = [
  { id: 1, name: "Flour", bought: false },
  { id: 2, name: "Butter", bought: true },
];

/** The list after one action; an item without a name is not added. */
export function shoppingList(items: Item[], action: Action): Item[] {
  switch (action.type) {
    case "added": {
      const name = action.name.trim();
      return name ? [...items, { id: nextId(items), name, bought: false }] : items;
    }
    case "toggled":
      return items.map((item) => (item.id === action.id ? { ...item, bought: !item.bought } : item));
    case "cleared":
      return items.filter((item) => !item.bought);
  }
}

function nextId(items: Item[]): number {
  return Math.max(0, ...items.map((item) => item.id)) + 1;
}
