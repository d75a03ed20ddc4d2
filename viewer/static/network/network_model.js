/** What the server has sent of the network: where nodes and paths lie, and their numbers. */

import {latest, subscribe} from "../shared/link.js"

/** @import {ArcsData, BlockHeader, NetworkLayoutData, NodesData, PathsData} from "../shared/parts.js" */
/** @import {NumberArray} from "../shared/frame.js" */

const NO_NUMBERS = Object.assign(new Float32Array(0), {shape: [0]})
/** @type {NodesData} */
const NO_NODES = {
  x: NO_NUMBERS, y: NO_NUMBERS, size: NO_NUMBERS, bar: NO_NUMBERS, phase: NO_NUMBERS, key: NO_NUMBERS,
  layer: NO_NUMBERS, first: NO_NUMBERS, last: NO_NUMBERS,
}
/** @type {PathsData} */
const NO_PATHS = {
  x: NO_NUMBERS, y: NO_NUMBERS, x1: NO_NUMBERS, y1: NO_NUMBERS, width: NO_NUMBERS, first: NO_NUMBERS, last: NO_NUMBERS,
}
/** @type {ArcsData} */
const NO_ARCS = {
  x0: NO_NUMBERS, y0: NO_NUMBERS, a: NO_NUMBERS, level: NO_NUMBERS, b: NO_NUMBERS, x1: NO_NUMBERS, y1: NO_NUMBERS,
  width: NO_NUMBERS, is_sum: NO_NUMBERS,
}

/** @typedef {"gradient" | "activation" | "weight_norm" | "state" | "amplitude" | "tone" | "colored_by"} NumberName */

/** @returns {NodesData} */
export const networkNodes = () => latest("nodes") ?? NO_NODES
/** @returns {PathsData} */
export const networkPaths = () => latest("paths") ?? NO_PATHS
/** @returns {ArcsData} */
export const networkArcs = () => latest("arcs") ?? NO_ARCS
/** @returns {NetworkLayoutData | undefined} undefined before there is a network */
export const networkLayout = () => {
  const layout = latest("network_layout")
  return layout?.layers?.length ? layout : undefined
}

/**
 * Amplitude, state and color of every node: at rest and normal before the first numbers.
 * @returns {{amplitude: NumberArray, state: NumberArray, tone: NumberArray}}
 */
export function nodeNumbers() {
  const n = networkNodes().x.length
  const {amplitude, state, tone} = latest("numbers") ?? {}
  if (amplitude?.length === n && state?.length === n) return {amplitude, state, tone: tone?.length === n ? tone : amplitude}
  return {amplitude: new Float32Array(n), state: new Uint8Array(n), tone: new Float32Array(n)}
}

/**
 * Weight and staging of every path, and weight of every arc.
 * @returns {{weight: NumberArray, staged: NumberArray, arcWeight: NumberArray}}
 */
export function pathNumbers() {
  const n = networkPaths().x.length
  const arcs = networkArcs().x0.length
  const {weight, staged, arc_weight: arcWeight} = latest("strokes") ?? {}
  if (weight?.length === n && staged?.length === n && arcWeight?.length === arcs) return {weight, staged, arcWeight}
  return {weight: new Float32Array(n), staged: new Uint8Array(n), arcWeight: new Float32Array(arcs)}
}

/**
 * The closed block in which a layer is drawn.
 * @param {number} layer
 * @returns {BlockHeader | undefined}
 */
export function blockOfLayer(layer) {
  const layout = networkLayout()
  return layout?.blocks[layout.layers[layer]?.block ?? -1]
}

/**
 * @param {NumberName} name
 * @param {number} node
 * @returns {number | undefined} undefined where it is not known
 */
export function numberOfNode(name, node) {
  return latest("numbers")?.[name]?.[node]
}

/**
 * @param {number} node
 * @returns {{layer: number, first: number, last: number}} the filters that it stands for
 */
export function filtersOfNode(node) {
  const {layer, first, last} = networkNodes()
  return {layer: layer[node], first: first[node], last: last[node]}
}

/**
 * The closed block at a point of the layout.
 * @param {[number, number]} point
 * @returns {BlockHeader | undefined}
 */
export function blockAt([x, y]) {
  return networkLayout()?.blocks.find(({left, right, top, bottom}) => left <= x && x <= right && top <= y && y <= bottom)
}

/**
 * @param {string} name of a layer
 * @returns {number} its index, -1 if there is none
 */
export function layerIndex(name) {
  return networkLayout()?.layers.findIndex((layer) => layer.name === name) ?? -1
}

/**
 * @param {number} layer
 * @returns {number[]} its nodes
 */
export function nodesOfLayer(layer) {
  return [...networkNodes().layer.keys()].filter((node) => networkNodes().layer[node] === layer)
}

/**
 * @param {string} layerName
 * @param {number} filter
 * @returns {number} the node that shows it, -1 if there is none
 */
export function nodeOfFilter(layerName, filter) {
  const {first, last} = networkNodes()
  return nodesOfLayer(layerIndex(layerName)).find((node) => first[node] <= filter && filter <= last[node]) ?? -1
}

/** @typedef {"layout" | "numbers" | "strokes"} NetworkChange */

/**
 * Call this with what changes.
 * @param {(change: NetworkChange) => void} callback
 */
export function onNetworkChange(callback) {
  for (const part of /** @type {const} */ (["nodes", "paths", "arcs"])) subscribe(part, () => callback("layout"))
  subscribe("numbers", () => callback("numbers"))
  subscribe("strokes", () => callback("strokes"))
}

