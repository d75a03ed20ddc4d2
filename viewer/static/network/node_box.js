/** Which filters a box over the network selects; nothing here needs a browser. */

/** @import {NodesData} from "../shared/parts.js" */
/** @import {Transform} from "./viewport.js" */

/** @typedef {{left: number, top: number, right: number, bottom: number}} Box px within the view */
/** @typedef {{layer: number, nodes: number[], filters: number[]}} BoxedFilters */

/**
 * Return the box between two opposite corners.
 * @param {readonly [x: number, y: number]} a
 * @param {readonly [x: number, y: number]} b
 * @returns {Box}
 */
export function boxBetween(a, b) {
  return {
    left: Math.min(a[0], b[0]), right: Math.max(a[0], b[0]),
    top: Math.min(a[1], b[1]), bottom: Math.max(a[1], b[1]),
  }
}

/**
 * Return the filters whose nodes have their center in a box. Only filters of one layer can be selected together: of
 * several layers, the one with most nodes in the box.
 * @param {Pick<NodesData, "x" | "y" | "layer" | "first" | "last">} nodes
 * @param {Transform} transform
 * @param {Box} box
 * @returns {BoxedFilters | null} null if there is none
 */
export function filtersInBox({x, y, layer, first, last}, transform, box) {
  const {left, top, scaleX, scaleY} = transform
  /** @type {Map<number, number[]>} */
  const byLayer = new Map()
  for (let i = 0; i < x.length; i++) {
    const screenX = (x[i] - left) * scaleX, screenY = (y[i] - top) * scaleY
    if (screenX < box.left || screenX > box.right || screenY < box.top || screenY > box.bottom) continue
    const inside = byLayer.get(layer[i])
    if (inside == null) byLayer.set(layer[i], [i])
    else inside.push(i)
  }
  /** @type {BoxedFilters | null} */
  let most = null
  for (const [index, inside] of byLayer) {
    if (most == null || inside.length > most.nodes.length) most = {layer: index, nodes: inside, filters: []}
  }
  if (most != null) most.filters = most.nodes.flatMap((node) => filterRange(first[node], last[node]))
  return most
}

/**
 * Return the indices of the filters that a node stands for.
 * @param {number} first
 * @param {number} last
 */
export function filterRange(first, last) {
  return Array.from({length: last - first + 1}, (_, i) => first + i)
}
