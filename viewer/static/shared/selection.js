/** Which nodes of the network view are selected, hovered or coupled. */

/**
 * @typedef {object} NodeSelection indices of nodes; -1 is none
 * @property {number} selected
 * @property {number} hovered
 * @property {readonly number[]} also nodes of further selected filters
 * @property {readonly number[]} coupled nodes of the filters that an edit would remove together
 */

/** @type {NodeSelection} */
let current = {selected: -1, hovered: -1, also: [], coupled: []}
/** @type {((now: NodeSelection, before: NodeSelection) => void)[]} */
const callbacks = []

export const nodeSelection = () => current

/** @param {Partial<NodeSelection>} changes */
export function changeNodeSelection(changes) {
  const before = current
  const names = /** @type {(keyof NodeSelection)[]} */ (Object.keys(changes))
  if (names.every((name) => changes[name] === before[name])) return
  current = {...before, ...changes}
  for (const callback of callbacks) callback(current, before)
}

/** @param {(now: NodeSelection, before: NodeSelection) => void} callback */
export function onNodeSelectionChange(callback) {
  callbacks.push(callback)
}
