/** Where the cells of a matrix of filters and classes lie, and their colors. */

/**
 * @typedef {object} MatrixLayout px
 * @property {number} left of the first column; before it are the numbers of the filters
 * @property {number} column width of a class
 * @property {number} row height of a filter
 * @property {number} bars left edge of the bars of selectivity and conflict
 * @property {number} width
 * @property {number} height
 */

const LEFT = 30 // px
const BAR = 34 // px, of each of the two bars
const GAP = 8 // px before the bars
const COLUMNS = {least: 6, most: 56} // px
const ROWS = {least: 4, most: 22} // px
export const BARS = 2
export const LEVELS = 65 // of the colors; the one in the middle is 0

/**
 * @param {number} width px that there are
 * @param {number} height px that there are; many filters need more
 * @param {number} rows
 * @param {number} columns
 * @returns {MatrixLayout}
 */
export function matrixLayout(width, height, rows, columns) {
  const room = width - LEFT - GAP - BARS * BAR
  const column = clamp(columns === 0 ? 0 : room / columns, COLUMNS)
  const row = clamp(rows === 0 ? 0 : height / rows, ROWS)
  const bars = LEFT + columns * column + GAP
  return {left: LEFT, column, row, bars, width: bars + BARS * BAR, height: rows * row}
}

/**
 * Return the row and the column under a point; null outside of the matrix. The column is -1 beside the classes.
 * @param {MatrixLayout} layout
 * @param {number} x px
 * @param {number} y px
 * @param {number} rows
 * @param {number} columns
 * @returns {{row: number, column: number} | null}
 */
export function cellAt({left, column, row}, x, y, rows, columns) {
  const at = Math.floor(y / row), class_ = Math.floor((x - left) / column)
  if (!(at >= 0 && at < rows)) return null
  return {row: at, column: class_ >= 0 && class_ < columns ? class_ : -1}
}

/**
 * Return the color of a value, as an index from 0 to `LEVELS` - 1.
 * @param {number} value
 * @param {number} limit of the strongest color
 */
export function colorLevel(value, limit) {
  const share = Number.isNaN(value) ? 0 : Math.max(-1, Math.min(1, value / limit))
  return Math.round((share + 1) / 2 * (LEVELS - 1))
}

/**
 * Return the cell that an arrow key moves to.
 * @param {{row: number, column: number}} cell
 * @param {string} key
 * @param {number} rows
 * @param {number} columns
 */
export function moveCell({row, column}, key, rows, columns) {
  const [dy, dx] = {ArrowUp: [-1, 0], ArrowDown: [1, 0], ArrowLeft: [0, -1], ArrowRight: [0, 1]}[key] ?? [0, 0]
  return {row: clamp(row + dy, {least: 0, most: rows - 1}), column: clamp(column + dx, {least: 0, most: columns - 1})}
}

/**
 * @param {number} value
 * @param {{least: number, most: number}} range
 */
function clamp(value, {least, most}) {
  return Math.max(least, Math.min(most, value))
}
