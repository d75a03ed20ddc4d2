/** A signal or a crop of it as curves, one below the other, on a strip of what an attribution says of it. */

import {signalPoints} from "../network/signal.js"
import {colormap} from "./colormaps.js"
import {context2d, paintAtlas} from "./tile_atlas.js"

/** @import {WireArray} from "../shared/parts.js" */
/** @import {FramedImage} from "./framed_image.js" */

export const CURVE_ASPECT = 2 // width to height
// Signals look the same in both themes, as images do.
const CURVE = "rgb(246 247 250 / 92%)"
const RESPONSE = "rgb(120 190 255)"
const OUTLINE = "rgb(255 176 66)"

/** @param {WireArray | null | undefined} pixels @returns {boolean} */
export function isCurve(pixels) {
  return pixels?.shape.length === 2
}

/**
 * @param {HTMLCanvasElement} canvas
 * @param {FramedImage} image whose frame, size, offset and outline are along the signal
 * @param {number} side width of the canvas, px
 */
export function paintFramedCurve(canvas, {pixels, strip, response, frame, size, offset, outline}, side) {
  const scale = side / frame[1], height = side / CURVE_ASPECT, left = offset[1] * scale, width = size[1] * scale
  canvas.width = side
  canvas.height = height
  const context = context2d(canvas), tiles = paintAtlas(strip, "diverging"), [red, green, blue] = colormap("gray")
  context.fillStyle = `rgb(${red} ${green} ${blue})`
  context.fillRect(0, 0, side, height)
  context.imageSmoothingEnabled = false
  if (tiles != null) context.drawImage(tiles.canvas, 0, 0, tiles.width, tiles.height, left, 0, width, height)
  context.translate(left, 0)
  paintCurves(context, pixels, width, height, CURVE, side / 128)
  if (response != null) paintCurves(context, response, width, height, RESPONSE, side / 96)
  context.translate(-left, 0)
  if (outline == null) return
  context.strokeStyle = OUTLINE
  context.lineWidth = side / 128
  context.strokeRect(outline[1] * scale, 1, Math.max(2, (outline[3] - outline[1]) * scale), height - 2)
}

/**
 * @param {CanvasRenderingContext2D} context
 * @param {WireArray} curves levels (channels, values)
 * @param {number} width px
 * @param {number} height px, of all channels together
 * @param {string} color
 * @param {number} line px
 */
function paintCurves(context, curves, width, height, color, line) {
  const [channels = 0, length = 0] = curves.shape, row = height / channels
  const values = Float32Array.from(curves, (level) => level / 127.5 - 1)
  context.strokeStyle = color
  context.lineWidth = line
  context.lineJoin = "round"
  for (let channel = 0; channel < channels; channel++) {
    context.beginPath()
    for (const [x, y] of signalPoints(values, channel, length, width, row)) context.lineTo(x, y)
    context.stroke()
  }
}
