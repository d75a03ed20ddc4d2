/** The charts of the page: their buttons, their notes, and how one is enlarged. */

import {elements} from "../shared/dom.js"
import {joinFacts} from "../shared/format.js"
import {latest, subscribe} from "../shared/link.js"
import {labelChartTabStops} from "./chart_focus.js"
import {startSavingTables} from "./chart_export.js"
import {openChartMenu} from "./chart_menu.js"
import {isZoomed, handleChartKey, onZoom, resetChartZoom, resetAllZooms, trackZoom, setZoomToolsActive} from "./chart_zoom.js"

/** @import {ChartsData} from "../shared/parts.js" */

/** Names of the charts whose tools are set. @type {Set<string>} */
const started = new Set()
/** What the ranges of all charts belong to. */
let shown = ""

/** @returns {HTMLElement | null} the chart that fills the page */
const enlarged = () => document.querySelector('.chart[data-enlarged="true"]')

/** @param {Element} element @returns {HTMLElement} the chart that an element belongs to */
const chartOf = (element) => /** @type {HTMLElement} */ (element.closest(".chart"))

/** @param {HTMLElement} chart */
export const chartName = (chart) => chart.dataset.plot ?? ""

/** @param {HTMLElement} chart */
const button = (chart, /** @type {string} */ action) =>
  /** @type {HTMLButtonElement | null} */ (chart.querySelector(`button[data-chart-action="${action}"]`))

/** Call this once Bokeh's models exist. */
export function startChartCards() {
  for (const chart of elements(".chart[data-plot]")) startChart(chart)
  trackZoom()
  startSavingTables()
  onZoom((name) => {
    for (const chart of elements(`.chart[data-plot="${name}"]`)) {
      const all = button(chart, "show-all")
      if (all != null) all.hidden = !isZoomed(name)
    }
  })
  subscribe("charts", (data) => {
    startMadeCharts(data.made ?? [])
    drawNotes(data)
    resetZoom()
  })
  subscribe("header", resetZoom)
  addEventListener("resize", () => elements(".chart[data-plot]").forEach(updateChart))
  document.addEventListener("keydown", shrinkWithEscape, {capture: true})
}

/** @param {HTMLElement} chart */
function startChart(chart) {
  const name = chartName(chart)
  button(chart, "show-all")?.addEventListener("click", () => resetChartZoom(name))
  button(chart, "enlarge")?.addEventListener("click", () => enlarge(chart, chart !== enlarged()))
  button(chart, "menu")?.addEventListener("click", ({currentTarget}) =>
    openChartMenu(chart, /** @type {Element} */ (currentTarget)))
  chart.querySelector(".head select")?.addEventListener("change", () => resetChartZoom(name))
  chart.querySelector(".plot")?.addEventListener("keydown", (event) => handleChartKey(name, /** @type {KeyboardEvent} */ (event)))
}

/**
 * Set the tools of the charts that Bokeh has made, and name their tab stops.
 * @param {string[]} names of all charts made so far
 */
function startMadeCharts(names) {
  const made = names.filter((name) => !started.has(name)).flatMap((name) => [...elements(`.chart[data-plot="${name}"]`)])
  for (const chart of made) {
    started.add(chartName(chart))
    updateChart(chart)
  }
  if (made.length > 0) labelChartTabStops()
}

/** @param {HTMLElement} chart */
function updateChart(chart) {
  setZoomToolsActive(chartName(chart), chart === enlarged())
}

/**
 * Let a chart fill the page, or return it to its place.
 * @param {HTMLElement} chart
 * @param {boolean} isEnlarged
 */
function enlarge(chart, isEnlarged) {
  for (const other of [enlarged(), chart]) {
    if (other == null) continue
    other.dataset.enlarged = String(isEnlarged && other === chart)
    const control = button(other, "enlarge")
    control?.setAttribute("aria-pressed", String(other === enlarged()))
    updateChart(other)
  }
}

/** End the zoom of all charts when another run, or another x axis, is shown. */
function resetZoom() {
  const now = `${latest("header")?.current_run} ${latest("charts")?.x_axis}`
  if (now !== shown) resetAllZooms()
  shown = now
}

/** @param {KeyboardEvent} event */
function shrinkWithEscape(event) {
  const chart = enlarged()
  if (event.key !== "Escape" || chart == null || document.querySelector("#chart-menu:popover-open")) return
  event.stopPropagation() // Escape also discards staged changes
  enlarge(chart, false)
}

/**
 * Say beside the titles what is not as usual: the x axis, and the run that is laid over this one.
 * @param {ChartsData} data
 */
function drawNotes({x_axis: by = "batch", compared_name: run = ""}) {
  const axis = by === "batch" ? "" : `by ${by}`
  for (const note of elements(".chart .note")) {
    const isFilter = chartName(chartOf(note)).startsWith("filter_")
    note.textContent = joinFacts([axis, !isFilter && run && `┄ ${run}`])
    note.title = note.textContent
  }
}
