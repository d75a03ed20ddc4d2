/** How levels from 0 to 255 become colors. Images look the same in both themes. */

/** @type {Record<string, [red: number, green: number, blue: number][]>} stops, evenly spaced */
const STOPS = {
  gray: [[14, 17, 23], [126, 128, 132], [246, 247, 250]],
  warm: [[32, 22, 56], [120, 84, 110], [134, 132, 136], [226, 150, 70], [255, 236, 196]],
  blue: [[6, 12, 24], [20, 58, 110], [52, 130, 210], [150, 208, 255], [244, 250, 255]],
  diverging: [[64, 160, 255], [24, 62, 116], [10, 14, 24], [140, 74, 14], [255, 176, 66]],
}

const TABLES = Object.fromEntries(Object.entries(STOPS).map(([name, stops]) => [name, table(stops)]))

/**
 * Return the colors of all levels, red, green and blue one after the other (256 × 3).
 * @param {string} name an unknown one is gray
 */
export function colormap(name) {
  return /** @type {Uint8ClampedArray} */ (TABLES[name] ?? TABLES.gray)
}

/** @param {[number, number, number][]} stops */
function table(stops) {
  const colors = new Uint8ClampedArray(3 * 256)
  for (let level = 0; level < 256; level++) {
    const at = level / 255 * (stops.length - 1), low = Math.min(stops.length - 2, Math.floor(at)), share = at - low
    for (let c = 0; c < 3; c++) colors[3 * level + c] = stops[low][c] * (1 - share) + stops[low + 1][c] * share
  }
  return colors
}
