/** Which tiles of an image are erased or painted. */

/** @typedef {[red: number, green: number, blue: number]} Color */
/** @typedef {{row: number, column: number}} Tile */
/** @typedef {{top: number, left: number, bottom: number, right: number, color: Color | null}} Patch */

export class PaintedTiles {
  rows = 0
  columns = 0
  /** @type {Map<number, Color | null>} by the number of the tile; null where it is erased */
  #fills = new Map()

  get isEmpty() {
    return this.#fills.size === 0
  }

  /**
   * Divide another image into tiles.
   * @param {number} rows
   * @param {number} columns
   */
  reset(rows, columns) {
    this.rows = rows
    this.columns = columns
    this.#fills.clear()
  }

  /**
   * @param {Tile} tile
   * @returns {Color | null | undefined} its color, null where it is erased, undefined where it is as it was
   */
  fillOf({row, column}) {
    return this.#fills.get(row * this.columns + column)
  }

  /**
   * Paint a tile, erase it with null, or restore it with undefined.
   * @param {Tile} tile
   * @param {Color | null | undefined} fill
   * @returns {boolean} whether that is a change
   */
  paint({row, column}, fill) {
    if (row < 0 || column < 0 || row >= this.rows || column >= this.columns) return false
    const key = row * this.columns + column
    if (this.#fills.has(key) && String(this.#fills.get(key)) === String(fill)) return false
    if (fill === undefined) return this.#fills.delete(key)
    this.#fills.set(key, fill)
    return true
  }

  /**
   * The painted tiles as shares of the image.
   * @returns {Patch[]}
   */
  patches() {
    const {rows, columns} = this
    return [...this.#fills].map(([key, color]) => {
      const row = Math.floor(key / columns), column = key % columns
      return {top: row / rows, left: column / columns, bottom: (row + 1) / rows, right: (column + 1) / columns, color}
    })
  }
}

/**
 * All tiles on the way from one to another, for a pointer that moves fast.
 * @param {Tile} from
 * @param {Tile} to
 * @returns {Tile[]}
 */
export function tilesBetween(from, to) {
  const rows = to.row - from.row, columns = to.column - from.column
  const steps = Math.max(Math.abs(rows), Math.abs(columns))
  return Array.from({length: steps + 1}, (_, i) => {
    const share = steps === 0 ? 0 : i / steps
    return {row: Math.round(from.row + rows * share), column: Math.round(from.column + columns * share)}
  })
}

/**
 * @param {string} hex such as #ff8800
 * @returns {Color}
 */
export function parseHexColor(hex) {
  const value = parseInt(hex.slice(1), 16)
  return [value >> 16 & 255, value >> 8 & 255, value & 255]
}
