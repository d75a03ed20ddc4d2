/** The filter under the pointer, in the network or in a view: the server sends its coupled filters and newest numbers. */

import {latest, sendCommand} from "./link.js"

const REQUEST_MS = 220 // the pointer rests on a filter before the training is asked for coupled filters

let requested = ""
/** @type {ReturnType<typeof setTimeout> | undefined} */
let timer

/**
 * Request the filter's coupled filters and numbers once the pointer rests on it.
 * @param {number} layer index; -1 if the pointer is on none
 * @param {number} filter index
 */
export function requestHoveredFilter(layer, filter) {
  clearTimeout(timer)
  timer = setTimeout(() => {
    const key = layer < 0 ? "" : keyOf(layer, filter)
    if (key === requested) return
    requested = key
    sendCommand("hover_filter", layer < 0 ? {} : {layer, first: filter})
  }, REQUEST_MS)
}

/**
 * Whether the server describes this filter now.
 * @param {number} layer
 * @param {number} filter
 */
export function isFilterRequested(layer, filter) {
  return requested === keyOf(layer, filter)
}

/** Whether the server describes the selected filter, because the pointer is on none. */
export function isNoFilterRequested() {
  return requested === ""
}

/**
 * Return the newest numbers of a filter; undefined where the server does not send them.
 * @param {number} layer
 * @param {number} filter
 */
export function hoveredNumbers(layer, filter) {
  const data = latest("hovered_filter")
  return data?.layer === layer && data.filter === filter ? data : undefined
}

/**
 * @param {number} layer
 * @param {number} filter
 */
function keyOf(layer, filter) {
  return `${layer} ${filter}`
}
