/** The jitter of nodes: the larger its gradient, the farther a node moves around its place. */

/** @import {NumberArray} from "../shared/frame.js" */

const REACH = 0.62 // of the room, for the largest gradient

/**
 * Return how far a node may move from its place, px.
 * @param {number} size diameter of a dot, height of a bar
 * @param {number} bar width of a bar; 0 for a dot
 */
function roomOf(size, bar) {
  return bar > 0 ? Math.min(6, 0.4 * bar) : Math.max(1.2, size * 0.375)
}

/**
 * Return how far the sines of a node's motion reach, px.
 * @param {number} amplitude 0 to 1
 * @param {number} motion factor of all motion
 * @param {number} size
 * @param {number} bar
 */
export function jitterReach(amplitude, motion, size, bar) {
  return REACH * motion * amplitude * roomOf(size, bar)
}

/**
 * Return the horizontal offset of a node for a reach of 1: the sum of two incommensurate sines.
 * @param {number} seconds
 * @param {number} phase
 */
export function jitterX(seconds, phase) {
  return Math.sin(23 * seconds + phase) + 0.6 * Math.sin(37 * seconds + 2.3 * phase)
}

/**
 * Return the vertical offset of a node for a reach of 1.
 * @param {number} seconds
 * @param {number} phase
 */
export function jitterY(seconds, phase) {
  return Math.cos(27 * seconds + 1.7 * phase) + 0.6 * Math.sin(41 * seconds + phase)
}

/**
 * Move every node from its place, in place. Bars move only sideways.
 * @param {{x: Float32Array, y: Float32Array}} places px
 * @param {{phase: NumberArray, amplitude: NumberArray, size: NumberArray, bar: NumberArray, motion: number}} nodes
 * @param {number} now ms
 */
export function jitterInPlace({x, y}, {phase, amplitude, size, bar, motion}, now) {
  if (motion === 0) return
  const seconds = now / 1000
  for (let i = 0; i < x.length; i++) {
    const reach = jitterReach(amplitude[i], motion, size[i], bar[i])
    x[i] += reach * jitterX(seconds, phase[i])
    if (bar[i] === 0) y[i] += reach * jitterY(seconds, phase[i])
  }
}
