/** Arrow keys that move between the rows of a table with one button per row. */

const PAGE = 10 // rows

/**
 * Return the row to go to; null if the key moves nowhere.
 * @param {string} key
 * @param {number} row
 * @param {number} count
 */
export function targetRow(key, row, count) {
  const targets = {ArrowDown: row + 1, ArrowUp: row - 1, PageDown: row + PAGE, PageUp: row - PAGE, Home: 0, End: count - 1}
  const target = targets[/** @type {keyof typeof targets} */ (key)]
  return target == null ? null : Math.max(0, Math.min(target, count - 1))
}

/**
 * @param {KeyboardEvent} event
 * @param {HTMLElement} body of the table
 */
export function moveBetweenRows(event, body) {
  const buttons = [...body.querySelectorAll("button")]
  const place = buttons.indexOf(/** @type {HTMLButtonElement} */ (event.target))
  const target = place < 0 ? null : targetRow(event.key, place, buttons.length)
  if (target == null) return
  event.preventDefault()
  event.stopPropagation()
  buttons[target].focus()
}
