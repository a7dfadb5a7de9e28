/** Move the focus from a row that is about to go to its neighbour, so that the keyboard does not lose its place. */
export function focusNeighbour(row: Element | null, otherwise: { focus(): void } | null): void {
  const neighbour = row?.nextElementSibling ?? row?.previousElementSibling;
  (neighbour?.querySelector("input") ?? otherwise)?.focus();
}
