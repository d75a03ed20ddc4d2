/** Images of the server, painted side by side on one canvas, from which thumbnails are copied. */

import {colormap} from "./colormaps.js"

/** @import {WireArray} from "../shared/parts.js" */

/**
 * @typedef {object} TileAtlas
 * @property {HTMLCanvasElement} canvas
 * @property {number} columns tiles per row
 * @property {number} width of a tile, px
 * @property {number} height of a tile, px
 * @property {number} count of tiles
 */

/**
 * Paint an atlas; null where it holds no image.
 * @param {WireArray | null | undefined} atlas levels (n, h, w), or red, green, blue (n, h, w, 3)
 * @param {string} colormapName of levels
 * @returns {TileAtlas | null}
 */
export function paintAtlas(atlas, colormapName) {
  const [count = 0, height = 0, width = 0] = atlas?.shape ?? []
  if (atlas == null || count === 0) return null
  const columns = Math.ceil(Math.sqrt(count)), canvas = document.createElement("canvas")
  canvas.width = columns * width
  canvas.height = Math.ceil(count / columns) * height
  const context = context2d(canvas), image = context.createImageData(canvas.width, canvas.height)
  const pixels = atlas.shape.length === 4 ? atlas : applyColormap(atlas, colormap(colormapName))
  let source = 0
  for (let i = 0; i < count; i++) {
    const left = i % columns * width, top = Math.floor(i / columns) * height
    for (let y = 0; y < height; y++) {
      let target = 4 * ((top + y) * canvas.width + left)
      for (let x = 0; x < width; x++, target += 4) {
        for (let c = 0; c < 3; c++) image.data[target + c] = pixels[source++]
        image.data[target + 3] = 255
      }
    }
  }
  context.putImageData(image, 0, 0)
  return {canvas, columns, width, height, count}
}

/**
 * Return the place of a tile on the canvas: left, top, width and height.
 * @param {TileAtlas} tiles
 * @param {number} i
 * @returns {[number, number, number, number]}
 */
export function tileBox({columns, width, height}, i) {
  return [i % columns * width, Math.floor(i / columns) * height, width, height]
}

/** @param {HTMLCanvasElement} canvas */
export function context2d(canvas) {
  return /** @type {CanvasRenderingContext2D} */ (canvas.getContext("2d"))
}

/**
 * @param {ArrayLike<number>} levels
 * @param {Uint8ClampedArray} colors of all levels
 */
function applyColormap(levels, colors) {
  const pixels = new Uint8Array(3 * levels.length)
  for (let i = 0, target = 0; i < levels.length; i++) {
    const color = 3 * levels[i]
    for (let c = 0; c < 3; c++) pixels[target++] = colors[color + c]
  }
  return pixels
}
