/** How many columns a grid has, and which filter is where in it; nothing here needs a browser. */

/**
 * Return the columns and the cell (px) of the grid of square cells that fills an area best.
 * @param {number} count
 * @param {number} width px
 * @param {number} height px
 */
export function gridShape(count, width, height) {
  const n = Math.max(1, count)
  let columns = Math.ceil(Math.sqrt(n * width / Math.max(1, height)))
  while (columns < n && Math.ceil(n / columns) * width / columns > height) columns += 1
  return {columns, cell: width / columns}
}

/**
 * Return the rank of each filter: the largest value first, equal ones by index.
 * @param {number[]} indices of the filters
 * @param {number[] | null} values of the filters; null sorts by index
 */
export function rankFilters(indices, values) {
  const order = indices.map((_, row) => row)
  order.sort((a, b) => (values == null ? 0 : values[b] - values[a]) || indices[a] - indices[b])
  const ranks = new Array(indices.length)
  order.forEach((row, rank) => ranks[row] = rank)
  return /** @type {number[]} */ (ranks)
}
