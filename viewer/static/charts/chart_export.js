/** Saving a chart: what it shows as an image, or its values as a table. */

import {viewOf} from "../shared/bokeh_document.js"
import {createElement} from "../shared/dom.js"
import {latest, sendCommand, subscribe} from "../shared/link.js"
import {saveFile} from "../shared/save_file.js"
import {fileName} from "../shared/file_name.js"
import {plotNamed} from "./chart_zoom.js"

const TITLE_HEIGHT = 30 // px
const MARGIN = 10

/** Save each table that arrives because this page has asked for it. */
export function startSavingTables() {
  subscribe("chart_table", ({chart, csv}) => {
    if (chart != null && csv != null) saveFile(new Blob([csv], {type: "text/csv"}), nameOf(chart, "csv"))
  })
}

/** Save the values of a chart, as they were recorded. @param {string} name */
export function saveTable(name) {
  sendCommand("request_chart_csv", {name})
}

/**
 * Save what a chart shows, with its title.
 * @param {string} name
 * @param {string} title
 */
export function saveImage(name, title) {
  const plot = plotNamed(name)
  const view = plot == null ? null : viewOf(plot)
  if (view == null) return
  const {canvas} = view.export("png", true)
  const sheet = createElement("canvas", {
    width: canvas.width, height: canvas.height + (title ? TITLE_HEIGHT * devicePixelRatio : 0),
  })
  const context = /** @type {CanvasRenderingContext2D} */ (sheet.getContext("2d"))
  paintTitle(context, title)
  context.drawImage(canvas, 0, sheet.height - canvas.height)
  sheet.toBlob((blob) => blob != null && saveFile(blob, nameOf(name, "png")))
}

/**
 * Paint the ground of the image, and the title above the chart.
 * @param {CanvasRenderingContext2D} context
 * @param {string} title
 */
function paintTitle(context, title) {
  const style = getComputedStyle(document.documentElement)
  const cssValue = (/** @type {string} */ variable) => style.getPropertyValue(variable).trim()
  const {width, height} = context.canvas
  context.fillStyle = cssValue("--card")
  context.fillRect(0, 0, width, height)
  context.save()
  context.scale(devicePixelRatio, devicePixelRatio)
  context.fillStyle = cssValue("--text")
  context.font = `600 12px ${cssValue("--font")}`
  context.textBaseline = "middle"
  context.fillText(title, MARGIN, TITLE_HEIGHT / 2)
  context.restore()
}

/**
 * @param {string} chart
 * @param {string} extension
 */
function nameOf(chart, extension) {
  return fileName([latest("header")?.model ?? "", chart], extension)
}
