/** Histograms of the weights and gradients of the opened layer: one ridge per batch, the newest in front. */

import {byId, elements} from "../shared/dom.js"
import {formatCount, formatNumber} from "../shared/format.js"
import {latest, subscribe} from "../shared/link.js"
import {onThemeChange} from "../shared/theme.js"
import {baselineY, ridgeOutline, ridgeLayout, rowAt} from "./ridges.js"
import {context2d} from "./tile_atlas.js"

/** @import {HistogramsData, RidgesData} from "../shared/parts.js" */

/** @typedef {"weights" | "gradients"} HistogramName */

/** Of the theme: forward is blue, backward is orange. */
const COLORS = {weights: "--blue", gradients: "--orange"}
const OLDEST_STRENGTH = 0.25 // of the color of the oldest ridge, the newest has 1

/** @type {Map<HTMLCanvasElement, {row: number, x?: number}>} the row, and px, under the pointer or chosen by key */
const marks = new Map()
/** @type {{row: number, x?: number}} */
const NO_MARK = {row: -1}

export function startHistograms() {
  subscribe("histograms", drawAll)
  onThemeChange(() => drawAll(latest("histograms") ?? {}))
  for (const figure of figures()) {
    const canvas = canvasOf(figure), name = nameOf(figure)
    canvas.addEventListener("pointermove", ({offsetX, offsetY}) => mark(figure, rowUnder(canvas, name, offsetY), offsetX))
    canvas.addEventListener("pointerleave", () => mark(figure, -1))
    canvas.addEventListener("blur", () => mark(figure, -1))
    canvas.addEventListener("keydown", (event) => onKey(event, figure))
    new ResizeObserver(() => draw(figure)).observe(canvas)
  }
}

const figures = () => elements("figure[data-histograms]")
/** @param {HTMLElement} figure */
const canvasOf = (figure) => /** @type {HTMLCanvasElement} */ (figure.querySelector("canvas"))
/** @param {HTMLElement} figure */
const nameOf = (figure) => /** @type {HistogramName} */ (figure.dataset.histograms)

/** @param {HistogramsData} data */
function drawAll({status = ""}) {
  const message = byId("histograms-status")
  message.textContent = status
  message.hidden = status === ""
  for (const figure of figures()) {
    figure.hidden = status !== ""
    draw(figure)
  }
}

/** @param {HTMLElement} figure */
function draw(figure) {
  const data = latest("histograms")?.[nameOf(figure)], canvas = canvasOf(figure)
  if (data == null || canvas.clientWidth === 0) return
  const title = figure.querySelector("h3")?.textContent ?? ""
  canvas.setAttribute("aria-label", `${title}: ${data.note || data.facts}, from −${data.axis ?? 0} to ${data.axis ?? 0}`)
  text(figure, ".low", data.axis == null ? "" : `−${data.axis}`)
  text(figure, ".high", data.axis ?? "")
  describe(figure, data)
  paint(canvas, data, nameOf(figure))
}

/**
 * @param {HTMLElement} figure
 * @param {string} selector
 * @param {string} content
 */
function text(figure, selector, content) {
  const element = /** @type {HTMLElement} */ (figure.querySelector(selector))
  element.textContent = element.title = content
}

/**
 * Describe the marked row, or all of them.
 * @param {HTMLElement} figure
 * @param {RidgesData} data
 */
function describe(figure, data) {
  const canvas = canvasOf(figure), {row, x} = marks.get(canvas) ?? NO_MARK
  const step = data.steps[row]
  if (step == null || data.shares == null) {
    text(figure, ".facts", data.note || data.facts)
    return
  }
  const bins = data.shares.shape[1], batch = `batch ${formatCount(step)}`
  if (x == null) {
    text(figure, ".facts", batch)
    return
  }
  const bin = Math.max(0, Math.min(bins - 1, Math.floor(x / canvas.clientWidth * bins)))
  const edge = (/** @type {number} */ at) => formatNumber(data.limit * (2 * at / bins - 1)).replace("-", "−")
  const share = 100 * data.shares[row * bins + bin]
  text(figure, ".facts", `${batch} · ${edge(bin)} to ${edge(bin + 1)}: ${share.toFixed(share < 10 ? 2 : 1)} %`)
}

/**
 * @param {HTMLCanvasElement} canvas
 * @param {HistogramName} name
 * @param {number} y px
 */
function rowUnder(canvas, name, y) {
  const rows = latest("histograms")?.[name]?.steps.length ?? 0
  return rowAt(ridgeLayout(canvas.clientWidth, canvas.clientHeight, rows), y, rows)
}

/**
 * @param {HTMLElement} figure
 * @param {number} row -1: none
 * @param {number} [x] px
 */
function mark(figure, row, x) {
  const canvas = canvasOf(figure), data = latest("histograms")?.[nameOf(figure)]
  const isSame = marks.get(canvas)?.row === row
  marks.set(canvas, {row, x})
  if (data == null) return
  describe(figure, data)
  if (!isSame) paint(canvas, data, nameOf(figure))
}

/**
 * Move between the batches with the arrow keys.
 * @param {KeyboardEvent} event
 * @param {HTMLElement} figure
 */
function onKey(event, figure) {
  const rows = latest("histograms")?.[nameOf(figure)]?.steps.length ?? 0
  const step = {ArrowUp: -1, ArrowDown: 1}[event.key]
  if (step == null || rows === 0) return
  event.preventDefault()
  event.stopPropagation() // the arrow keys of the page move the selection
  const {row} = marks.get(canvasOf(figure)) ?? NO_MARK
  mark(figure, row < 0 ? rows - 1 : Math.max(0, Math.min(rows - 1, row + step)))
}

/**
 * @param {HTMLCanvasElement} canvas
 * @param {RidgesData} data
 * @param {HistogramName} name
 */
function paint(canvas, {steps, shares, peak = 1}, name) {
  const {clientWidth: width, clientHeight: height} = canvas, context = context2d(canvas)
  canvas.width = Math.round(width * devicePixelRatio)
  canvas.height = Math.round(height * devicePixelRatio)
  context.scale(devicePixelRatio, devicePixelRatio)
  if (shares == null) return
  const rows = steps.length, bins = shares.shape[1], layout = ridgeLayout(width, height, rows)
  const style = getComputedStyle(canvas), marked = (marks.get(canvas) ?? NO_MARK).row
  const color = style.getPropertyValue(COLORS[name]), ground = style.getPropertyValue("--card")
  context.lineJoin = "round"
  for (let row = 0; row < rows; row++) {
    const base = baselineY(layout, row, rows), age = rows > 1 ? row / (rows - 1) : 1
    const strength = 100 * (OLDEST_STRENGTH + (1 - OLDEST_STRENGTH) * age)
    const points = ridgeOutline(layout, shares.subarray(row * bins, (row + 1) * bins), peak, base)
    context.beginPath()
    context.moveTo(0, base)
    for (const [x, y] of points) context.lineTo(x, y)
    context.lineTo(width, base)
    context.fillStyle = `color-mix(in srgb, ${color} ${(0.32 * strength).toFixed(1)}%, ${ground})`
    context.fill()
    context.strokeStyle = row === marked ? style.getPropertyValue("--text") : `color-mix(in srgb, ${color} ${strength.toFixed(1)}%, ${ground})`
    context.lineWidth = row === marked ? 1.8 : row === rows - 1 ? 1.4 : 0.8
    context.stroke()
  }
}
