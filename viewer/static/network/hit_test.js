/** Which node lies under the pointer. */

import {nodeScale} from "./viewport.js"

/** @import {NodesData} from "../shared/parts.js" */
/** @import {Transform} from "./viewport.js" */

// px beyond a node's edge that still hit it
const TOLERANCE_X = 4
const TOLERANCE_Y = 3

/**
 * @param {Pick<NodesData, "x" | "y" | "size" | "bar">} nodes
 * @param {Transform} transform
 * @param {number} pointerX px
 * @param {number} pointerY px
 * @returns {number} the nearest node; -1 if none is near
 */
export function nodeAt({x, y, size, bar}, transform, pointerX, pointerY) {
  const {left, top, scaleX, scaleY} = transform
  const scale = nodeScale(transform)
  let nearest = -1
  let least = Infinity
  for (let i = 0; i < x.length; i++) {
    const dx = Math.abs((x[i] - left) * scaleX - pointerX)
    const dy = Math.abs((y[i] - top) * scaleY - pointerY)
    const isBar = bar[i] > 0
    if (dx > Math.max(bar[i], size[i]) / 2 * scale + TOLERANCE_X || dy > size[i] / 2 * scale + TOLERANCE_Y) continue
    const distance = isBar ? dy : dx * dx + dy * dy
    if (distance < least) [nearest, least] = [i, distance]
  }
  return nearest
}
