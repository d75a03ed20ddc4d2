/** The tab stops of the charts: Bokeh makes one for each, and gives it no name. */

import {elements} from "../shared/dom.js"

const POLL_MS = 250
const MAX_TRIES = 40

/** @type {ReturnType<typeof setTimeout> | undefined} */
let timer

/**
 * Name the tab stops of the charts that have been made; Bokeh builds their elements a little later.
 * @param {number} [triesLeft]
 */
export function labelChartTabStops(triesLeft = MAX_TRIES) {
  clearTimeout(timer)
  const unnamed = [...elements(".plot[aria-label]")].filter((plot) => !nameStopsOf(plot))
  if (unnamed.length > 0 && triesLeft > 0) timer = setTimeout(labelChartTabStops, POLL_MS, triesLeft - 1)
}

/**
 * Give the focusable elements of a chart the chart's name.
 * @param {HTMLElement} plot
 * @returns {boolean} whether there are any
 */
function nameStopsOf(plot) {
  const stops = focusable(plot)
  for (const stop of stops) {
    stop.setAttribute("role", "application")
    stop.setAttribute("aria-label", plot.getAttribute("aria-label") ?? "")
  }
  return stops.length > 0
}

/**
 * Return all focusable elements below an element, in the shadow roots of Bokeh's models, too.
 * @param {Element | ShadowRoot} root
 * @returns {Element[]}
 */
function focusable(root) {
  const found = [...root.querySelectorAll('[tabindex="0"]')]
  for (const element of root.querySelectorAll("*")) if (element.shadowRoot != null) found.push(...focusable(element.shadowRoot))
  return found
}
