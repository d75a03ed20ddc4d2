/** Zooming and moving what a chart shows: by Bokeh's tools with the mouse, by its actions otherwise. */

import {modelNamed} from "../shared/bokeh_document.js"

/** @typedef {"in" | "out" | "earlier" | "later"} ZoomAction */

// On narrow and on touch screens the page scrolls: a chart takes no wheel and no drag there, unless it is enlarged.
const SCROLLING = "(max-width: 800px), (pointer: coarse)"

/** @type {Record<ZoomAction, (tool: any) => boolean>} */
const TOOLS = {
  in: ({type}) => type === "ZoomInTool",
  out: ({type}) => type === "ZoomOutTool",
  earlier: ({type, direction}) => type === "ClickPanTool" && direction === "west",
  later: ({type, direction}) => type === "ClickPanTool" && direction === "east",
}

/** @type {Set<string>} */
const zoomed = new Set()
/** Charts that have been reset, until the event of the reset arrives. @type {Set<string>} */
const resetting = new Set()
/** @type {((name: string) => void)[]} */
const callbacks = []

/**
 * @param {string} name of a chart
 * @returns {BokehPlot | null} null before Bokeh has built it
 */
export const plotNamed = (name) => modelNamed(name)

/** Whether a chart shows a part of its curves. @param {string} name */
export const isZoomed = (name) => zoomed.has(name)

/**
 * Call this with the name of a chart after it has been zoomed or reset.
 * @param {(name: string) => void} callback
 */
export function onZoom(callback) {
  callbacks.push(callback)
}

/**
 * @param {string} name
 * @param {boolean} isPart
 */
function note(name, isPart) {
  if (isPart) zoomed.add(name)
  else zoomed.delete(name)
  for (const callback of callbacks) callback(name)
}

/**
 * @param {string} name of a chart
 * @param {ZoomAction} action
 */
export function zoomChart(name, action) {
  const tool = plotNamed(name)?.toolbar.tools.find(TOOLS[action])
  if (tool == null) return
  /** @type {BokehActionTool} */ (tool).do.emit()
  note(name, true)
}

/** Show all of a chart's curves again, and follow new values. @param {string} name */
export function resetChartZoom(name) {
  if (!zoomed.has(name)) return
  resetting.add(name)
  plotNamed(name)?.reset.emit()
  note(name, false)
}

/** Show all of the curves in every chart, which now have other values. */
export function resetAllZooms() {
  for (const name of [...zoomed]) resetChartZoom(name)
}

/**
 * Let the wheel and a drag zoom and move a chart, or leave them to the page.
 * @param {string} name
 * @param {boolean} isEnlarged
 */
export function setZoomToolsActive(name, isEnlarged) {
  const toolbar = plotNamed(name)?.toolbar
  if (toolbar == null) return
  const isActive = isEnlarged || !matchMedia(SCROLLING).matches
  const find = (/** @type {string} */ wanted) => toolbar.tools.find(({type}) => isActive && type === wanted) ?? null
  if ((toolbar.active_drag != null) === isActive) return
  toolbar.active_drag = find("PanTool")
  toolbar.active_scroll = find("WheelZoomTool")
}

/** Track the zoom of all charts; a double click shows all. chart_functions.js dispatches the event. */
export function trackZoom() {
  addEventListener("chart-event", (event) => {
    const {name, event: kind} = /** @type {CustomEvent<{name: string, event: string}>} */ (event).detail
    if (kind === "doubletap") resetChartZoom(name)
    else if (!resetting.delete(name)) note(name, true)
  })
}

/** @type {Record<string, (name: string) => void>} */
const KEYS = {
  "+": (name) => zoomChart(name, "in"),
  "-": (name) => zoomChart(name, "out"),
  ArrowLeft: (name) => zoomChart(name, "earlier"),
  ArrowRight: (name) => zoomChart(name, "later"),
  0: resetChartZoom,
}

/**
 * What a key does in a chart that has the focus.
 * @param {string} name
 * @param {KeyboardEvent} event
 */
export function handleChartKey(name, event) {
  const run = event.ctrlKey || event.metaKey || event.altKey ? undefined : KEYS[event.key]
  if (run == null) return
  event.preventDefault()
  event.stopPropagation() // the same keys edit the network
  run(name)
}
