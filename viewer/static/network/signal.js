/** The picture of an input that is no image: a curve per channel. */

import {context2d} from "../layer/tile_atlas.js"

/** @import {WireArray} from "../shared/parts.js" */

const SIZE = [176, 88] // device pixels
const FILL = 0.86 // of the height of a channel

/**
 * @param {HTMLCanvasElement} canvas
 * @param {WireArray} signal (channels, values) between -1 and 1
 */
export function drawSignal(canvas, signal) {
  const [channels = 0, length = 0] = signal.shape
  const [width, height] = SIZE
  canvas.width = width
  canvas.height = height
  canvas.dataset.small = "false"
  const context = context2d(canvas), row = height / channels
  context.strokeStyle = getComputedStyle(canvas).color
  context.lineWidth = Math.max(0.8, Math.min(1.6, row / 8))
  context.lineJoin = "round"
  for (let channel = 0; channel < channels; channel++) {
    context.beginPath()
    for (const [x, y] of signalPoints(signal, channel, length, width, row)) context.lineTo(x, y)
    context.stroke()
  }
}

/**
 * Return the points of the curve of one channel.
 * @param {ArrayLike<number>} signal
 * @param {number} channel
 * @param {number} length values per channel
 * @param {number} width of the picture
 * @param {number} row height of a channel
 * @returns {[number, number][]}
 */
export function signalPoints(signal, channel, length, width, row) {
  return Array.from({length}, (_, i) => [
    length > 1 ? i / (length - 1) * width : width / 2,
    row * (channel + 0.5 - signal[channel * length + i] * FILL / 2),
  ])
}
