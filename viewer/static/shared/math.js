/** Small functions on numbers. */

/**
 * @param {number} value
 * @param {number} low
 * @param {number} high
 */
export function clamp(value, low, high) {
  return Math.min(high, Math.max(low, value))
}

/**
 * Ease a movement so that it slows down at its end.
 * @param {number} t progress from 0 to 1
 */
export function easeOut(t) {
  return 1 - (1 - t) ** 3
}
