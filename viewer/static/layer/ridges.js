/** Where the ridges of histograms over time lie: the oldest at the back, the newest in front. */

/**
 * @typedef {object} RidgeLayout px
 * @property {number} width
 * @property {number} top baseline of the oldest ridge
 * @property {number} bottom baseline of the newest
 * @property {number} height of a ridge of full height
 */

const MAX_HEIGHT_SHARE = 0.42 // of the drawing, for one ridge
const OVERLAP = 9 // ridges that one of full height covers
const EDGE = 2 // px

/**
 * @param {number} width px
 * @param {number} height px
 * @param {number} rows
 * @returns {RidgeLayout}
 */
export function ridgeLayout(width, height, rows) {
  const room = height - 2 * EDGE
  // Each ridge may be OVERLAP times as high as the distance between two.
  const gaps = Math.max(0, rows - 1), tall = room * OVERLAP / (gaps + OVERLAP)
  const ridge = gaps === 0 ? room : Math.min(tall, room * MAX_HEIGHT_SHARE)
  return {width, top: EDGE + ridge, bottom: height - EDGE, height: ridge}
}

/**
 * @param {RidgeLayout} layout
 * @param {number} row
 * @param {number} rows
 */
export function baselineY({top, bottom}, row, rows) {
  return rows > 1 ? top + (bottom - top) * row / (rows - 1) : bottom
}

/**
 * Return the row whose baseline is nearest below a point, -1 without rows.
 * @param {RidgeLayout} layout
 * @param {number} y px
 * @param {number} rows
 */
export function rowAt({top, bottom}, y, rows) {
  if (rows === 0) return -1
  const share = bottom > top ? (y - top) / (bottom - top) : 1
  return Math.max(0, Math.min(rows - 1, Math.ceil(share * (rows - 1) - 0.25)))
}

/**
 * Return the outline of a ridge from left to right: x and y of each bin's middle, in px.
 * @param {RidgeLayout} layout
 * @param {ArrayLike<number>} shares of the bins
 * @param {number} peak
 * @param {number} base
 * @returns {[x: number, y: number][]}
 */
export function ridgeOutline({width, height}, shares, peak, base) {
  return Array.from(shares, (share, bin) => [(bin + 0.5) * width / shares.length, base - height * Math.min(1, share / peak)])
}
