/** Where nodes start from when the network gets another layout. */

/** @import {NodesData} from "../shared/parts.js" */
/** @import {Transform} from "./viewport.js" */

const MAX_REMOVED = 512 // removed nodes that are seen to shrink

/**
 * @typedef {object} Tween in units of the new layout
 * @property {Float32Array} x where each node starts; NaN if it is new
 * @property {Float32Array} y
 * @property {Float32Array} size
 * @property {[number, number, number][]} removed x, y and size of nodes that are no longer there
 * @property {number} [start] ms; set with the first frame that shows it
 */

/**
 * @typedef {object} Placement a layout as it is in view
 * @property {Pick<NodesData, "x" | "y" | "size" | "key">} nodes
 * @property {Transform} transform
 */

/**
 * @param {Placement} before
 * @param {Placement} after
 * @returns {Tween | null} null if no node stays
 */
export function tweenBetween(before, after) {
  const {x, y, size, key} = before.nodes
  const placeX = (/** @type {number} */ i) => convert(x[i], before.transform.left, before.transform.scaleX, after.transform.left, after.transform.scaleX)
  const placeY = (/** @type {number} */ i) => convert(y[i], before.transform.top, before.transform.scaleY, after.transform.top, after.transform.scaleY)
  const kept = new Set(after.nodes.key)
  /** @type {Map<number, number>} */
  const rows = new Map()
  /** @type {[number, number, number][]} */
  const removed = []
  let stays = 0
  for (let i = 0; i < key.length; i++) {
    rows.set(key[i], i)
    if (kept.has(key[i])) stays += 1
    else if (removed.length < MAX_REMOVED) removed.push([placeX(i), placeY(i), size[i]])
  }
  if (stays === 0) return null
  const start = (/** @type {(i: number) => number} */ value) => Float32Array.from(after.nodes.key, (name) => {
    const row = rows.get(name)
    return row == null ? NaN : value(row)
  })
  return {x: start(placeX), y: start(placeY), size: start((i) => size[i]), removed}
}

/**
 * The place in a layout that is seen where a place of another layout was seen.
 * @param {number} value
 * @param {number} from origin of the one
 * @param {number} fromScale
 * @param {number} to origin of the other
 * @param {number} toScale
 */
function convert(value, from, fromScale, to, toScale) {
  return to + (value - from) * fromScale / toScale
}
