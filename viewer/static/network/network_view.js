/** The network view: canvases, headers, search, pointer, and what is in view. */

import {announce, byId} from "../shared/dom.js"
import {reportView, subscribe} from "../shared/link.js"
import {changeNodeSelection, nodeSelection} from "../shared/selection.js"
import {NetworkHeaders} from "./headers.js"
import {NetworkCanvas} from "./network_canvas.js"
import {startNetworkExport} from "./network_export.js"
import {InputOutputView} from "./input_output_view.js"
import {ModuleMarks} from "./marks.js"
import {layerIndex, networkNodes, nodeOfFilter, nodesOfLayer, filtersOfNode, numberOfNode} from "./network_model.js"
import {NetworkPointer} from "./pointer.js"
import {startSearch} from "./search.js"
import {Viewport} from "./viewport.js"

const RESIZE_MS = 120 // the server computes another layout only after the size has rested so long

const viewport = new Viewport()
/** @type {NetworkCanvas | null} */
let canvas = null
/** @type {{place: () => void}[]} the elements over the canvases */
let overlays = []

/** The two canvases, for tests; null before the network view has started. */
export const networkCanvas = () => canvas

/** Draw another part of the layout. */
function viewChanged() {
  canvas?.drawView()
  for (const overlay of overlays) overlay.place()
  byId("zoom-out").hidden = viewport.showsAll
}

export function showWholeNetwork() {
  viewport.show(0, 0, 1)
  viewChanged()
}

/**
 * Zoom around the selected node, or around the middle of the view.
 * @param {number} factor
 */
export function zoomBy(factor) {
  const {selected} = nodeSelection()
  const {x, y} = networkNodes()
  const [centerX, centerY] = viewport.center
  viewport.zoomAround(x[selected] ?? centerX, y[selected] ?? centerY, factor)
  viewChanged()
}

/**
 * Show a filter as selected, which was selected elsewhere, before the server's reply confirms it.
 * @param {string} layerName
 * @param {number} filter
 */
export function highlightFilter(layerName, filter) {
  const node = nodeOfFilter(layerName, filter)
  if (node < 0) return
  changeNodeSelection({selected: node})
  byId("filter").textContent = `filter ${filter}`
}

/**
 * Where the nodes of a layer are in the window, for tests.
 * @param {string} layerName
 */
export function nodePositionsInWindow(layerName) {
  const {left, top} = byId("plot").getBoundingClientRect()
  const {x, y} = networkNodes()
  return nodesOfLayer(layerIndex(layerName)).map((node) => {
    const [screenX, screenY] = viewport.toScreen(x[node], y[node])
    const {first, last} = filtersOfNode(node)
    return {node, index: first, last, state: numberOfNode("state", node), x: left + screenX, y: top + screenY}
  })
}

/** Keep the size of the view, and have the server compute the layout for it. */
function trackSize() {
  const element = byId("plot")
  const {clientWidth: width, clientHeight: height} = element
  viewport.setSize(width, height)
  /** @type {ReturnType<typeof setTimeout> | undefined} */
  let timer
  new ResizeObserver(() => {
    viewport.setSize(element.clientWidth, element.clientHeight)
    viewChanged()
    clearTimeout(timer)
    timer = setTimeout(() => reportView({width: element.clientWidth, height: element.clientHeight}), RESIZE_MS)
  }).observe(element)
}

export function startNetwork() {
  trackSize()
  subscribe("network_layout", ({width, height}) => {
    if (width && height) viewport.setLayoutSize(width, height)
    byId("zoom-out").hidden = viewport.showsAll
  })
  overlays = [new NetworkHeaders(viewport), new InputOutputView(viewport), new ModuleMarks(viewport)]
  canvas = new NetworkCanvas(/** @type {HTMLCanvasElement} */ (byId("paths")), /** @type {HTMLCanvasElement} */ (byId("nodes")), viewport)
  new NetworkPointer(viewport, viewChanged)
  startSearch()
  startNetworkExport(networkCanvas)
  byId("zoom-out").addEventListener("click", showWholeNetwork)
  subscribe("selection", ({node = -1, also = [], coupled = [], text}) => {
    changeNodeSelection({selected: node, also, coupled})
    if (text) announce(text)
  })
}
