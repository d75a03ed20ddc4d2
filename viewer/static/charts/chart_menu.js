/** The menu of a chart: how its curves are drawn, what part of them is shown, and saving them. */

import {byId, createElement} from "../shared/dom.js"
import {latest, sendCommand, subscribe} from "../shared/link.js"
import {placePopover} from "../shared/popover.js"
import {saveImage, saveTable} from "./chart_export.js"
import {resetChartZoom, zoomChart} from "./chart_zoom.js"

/** @import {ChartsData, Scale, XAxis} from "../shared/parts.js" */
/** @import {ZoomAction} from "./chart_zoom.js" */

/** @type {Record<Scale, string>} */
const SCALES = {auto: "auto", linear: "linear", log: "log"}
/** @type {Record<XAxis, string>} */
const X_AXES = {batch: "batch", epoch: "epoch", time: "time"}
/** @type {[ZoomAction, string, string][]} */
const ZOOMS = [["in", "+", "Zoom in"], ["out", "−", "Zoom out"], ["earlier", "‹", "Move to earlier"], ["later", "›", "Move to later"]]
const SMOOTHING_STEPS = 40

/** @returns {HTMLElement} */
const menu = () => byId("chart-menu")

/**
 * @param {HTMLElement} chart
 * @param {Element} anchor
 */
export function openChartMenu(chart, anchor) {
  const name = chart.dataset.plot ?? "", title = chartTitle(chart)
  const data = latest("charts") ?? {}
  const rows = [
    createElement("b", {}, title || "Chart"),
    smoothingRow(name, data), scaleRow(name, data), zoomRow(name), saveRow(name, title, data),
    createElement("b", {}, "All charts"),
    segments("Over", X_AXES, data.x_axis ?? "batch", (option) => sendCommand("set_x_axis", {option})),
    comparisonRow(data),
  ]
  menu().replaceChildren(...rows.filter((row) => row != null))
  menu().setAttribute("aria-label", `Options of the chart ${title}`)
  menu().showPopover()
  placePopover(menu(), anchor)
  const first = /** @type {HTMLElement | null} */ (menu().querySelector("input, button, select"))
  first?.focus()
}

/** Press the buttons of what the server has set, and keep the keys of the page out of the menu. */
export function startChartMenu() {
  menu().addEventListener("keydown", (event) => {
    event.stopPropagation()
    if (event.key === "Escape") menu().hidePopover()
  })
  subscribe("charts", ({x_axis}) => press("Over", x_axis))
}

/** @param {HTMLElement} chart */
export function chartTitle(chart) {
  const chooser = /** @type {HTMLSelectElement | null} */ (chart.querySelector(".head select"))
  return (chooser?.selectedOptions[0]?.textContent ?? chart.querySelector(".head h3")?.textContent ?? "").trim()
}

/**
 * @param {string} name
 * @param {ChartsData} data
 */
function smoothingRow(name, {smoothing, max_smoothing: most = 0}) {
  const share = smoothing?.[name]
  if (share == null) return null
  const output = createElement("output", {}, percent(share))
  const filled = (/** @type {number} */ value) => `${100 * value / most}%`
  const onInput = (/** @type {Event & {target: HTMLInputElement}} */ {target}) => {
    target.style.setProperty("--part", filled(target.valueAsNumber))
    output.textContent = percent(target.valueAsNumber)
    sendCommand("set_smoothing", {name, value: target.valueAsNumber})
  }
  const slider = createElement("input", {
    type: "range", min: 0, max: most, step: most / SMOOTHING_STEPS, value: share, oninput: onInput,
    style: `--part: ${filled(share)}`,
    "aria-label": "Smoothing: width of the moving average, in percent of the curve",
  })
  return createElement("div", {class: "row", title: "Width of the moving average, in percent of the curve"},
    createElement("span", {}, "Smoothing"), slider, output)
}

/** @param {number} share */
const percent = (share) => share === 0 ? "off" : `${(100 * share).toFixed(1)} %`

/**
 * @param {string} name
 * @param {ChartsData} data
 */
function scaleRow(name, {scales}) {
  const scale = scales?.[name]
  return scale == null ? null : segments("Scale", SCALES, scale, (option) => {
    sendCommand("set_y_axis_scale", {name, option})
    resetChartZoom(name)
  })
}

/** @param {string} name */
function zoomRow(name) {
  if (name === "bars") return null // shows all filters
  return createElement("div", {class: "row"}, createElement("span", {}, "Zoom"),
    ...ZOOMS.map(([action, label, title]) =>
      createElement("button", {class: "round", title, "aria-label": title, onclick: () => zoomChart(name, action)}, label)),
    item("Show all", () => resetChartZoom(name)))
}

/**
 * @param {string} name
 * @param {string} title
 * @param {ChartsData} data
 */
function saveRow(name, title, {scales}) {
  const table = scales?.[name] == null ? [] : [item("CSV", () => saveTable(name))]
  return createElement("div", {class: "row"}, createElement("span", {}, "Save"),
    item("PNG", () => saveImage(name, title)), ...table)
}

/** @param {ChartsData} data */
function comparisonRow({other_runs: others = [], compared_run: compared = ""}) {
  const options = [{id: "", label: others.length > 0 ? "none" : "no other run"}, ...others].map(({id, label}) =>
    createElement("option", {value: id, selected: id === compared}, label))
  const chooser = createElement("select", {
    "aria-label": "Run to compare with", disabled: others.length === 0,
    onchange: (/** @type {Event & {target: HTMLSelectElement}} */ {target}) => sendCommand("compare_run", {run: target.value}),
  }, ...options)
  return createElement("div", {class: "row"}, createElement("span", {}, "Compare"), chooser)
}

/**
 * Create a row of buttons; one is pressed.
 * @template {string} Option
 * @param {string} label
 * @param {Record<Option, string>} options
 * @param {Option} current
 * @param {(option: Option) => void} choose
 */
function segments(label, options, current, choose) {
  const buttons = /** @type {[Option, string][]} */ (Object.entries(options)).map(([option, text]) => {
    const onclick = () => {
      press(label, option)
      choose(option)
    }
    return createElement("button", {"data-option": option, "aria-pressed": String(option === current), onclick}, text)
  })
  return createElement("div", {class: "row"}, createElement("span", {}, label),
    createElement("div", {class: "segments", role: "group", "aria-label": label}, ...buttons))
}

/**
 * @param {string} label of the group
 * @param {string} [option]
 */
function press(label, option) {
  if (option == null) return
  for (const button of menu().querySelectorAll(`.segments[aria-label="${label}"] button`)) {
    button.setAttribute("aria-pressed", String(/** @type {HTMLElement} */ (button).dataset.option === option))
  }
}

/**
 * @param {string} text
 * @param {() => void} onclick
 */
const item = (text, onclick) => createElement("button", {class: "small", onclick}, text)
