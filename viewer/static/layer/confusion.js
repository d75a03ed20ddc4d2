/** Which classes of the validation data the network takes for which: a row for each true class. */

import {byId} from "../shared/dom.js"
import {countOf} from "../shared/format.js"
import {latest} from "../shared/link.js"
import {moveCell} from "./class_matrix.js"
import {context2d} from "./tile_atlas.js"

const NAMES = 64 // px before the first column
const CELL = {least: 2, most: 20} // px
const MIN_LABEL = 11 // px of a row, to write its name
const HEIGHT_SHARE = 0.45, HEAD = 24 // of the pane, as in classes.css; px of the title

/**
 * Return the size of a cell at which all of the matrix is seen, if its names can be read then.
 * @param {number} classes
 */
function cellSize(classes) {
  const figure = byId("confusion"), n = Math.max(1, classes)
  const inHeight = (HEIGHT_SHARE * (figure.parentElement?.clientHeight ?? 0) - HEAD) / n
  return Math.max(CELL.least, Math.min(CELL.most, (figure.clientWidth - NAMES) / n, Math.max(MIN_LABEL, inHeight)))
}

/** The cell that was chosen by key. @type {{row: number, column: number} | null} */
let marked = null

const canvasOf = () => /** @type {HTMLCanvasElement} */ (byId("confusion-matrix"))

/** @param {(text: string) => void} describe says what a cell shows; "" when none is pointed at */
export function startConfusionMatrix(describe) {
  const canvas = canvasOf()
  canvas.addEventListener("pointermove", ({offsetX, offsetY}) => describe(textAt(offsetX, offsetY)))
  canvas.addEventListener("pointerleave", () => describe(""))
  canvas.addEventListener("blur", () => {
    marked = null
    describe("")
    drawConfusionMatrix()
  })
  canvas.addEventListener("keydown", (event) => {
    const classes = latest("classes")?.confusion?.names.length ?? 0
    if (classes === 0 || !event.key.startsWith("Arrow")) return
    event.preventDefault()
    event.stopPropagation() // the arrow keys of the page move the selection
    marked = marked == null ? {row: 0, column: 0} : moveCell(marked, event.key, classes, classes)
    describe(textOf(marked.row, marked.column))
    drawConfusionMatrix()
  })
}

export function drawConfusionMatrix() {
  const data = latest("classes")?.confusion, canvas = canvasOf()
  byId("confusion").hidden = data == null
  if (data == null) return
  byId("confusion-facts").textContent = data.text
  const {shares, names} = data
  canvas.hidden = names.length === 0 || shares == null
  if (canvas.hidden || shares == null) return
  const cell = cellSize(names.length), width = NAMES + names.length * cell, height = names.length * cell
  canvas.width = Math.round(width * devicePixelRatio)
  canvas.height = Math.round(height * devicePixelRatio)
  canvas.style.width = `${width}px`
  canvas.style.height = `${height}px`
  canvas.setAttribute("aria-label", `Confusion of the validation data: ${data.text}. Arrow keys move between cells.`)
  const context = context2d(canvas), style = getComputedStyle(canvas)
  context.scale(devicePixelRatio, devicePixelRatio)
  context.font = `11px ${style.getPropertyValue("--font")}`
  context.textAlign = "right"
  context.textBaseline = "middle"
  for (let row = 0; row < names.length; row++) {
    if (cell >= MIN_LABEL) {
      context.fillStyle = style.getPropertyValue("--muted")
      context.fillText(shortened(context, names[row]), NAMES - 6, (row + 0.5) * cell)
    }
    for (let column = 0; column < names.length; column++) {
      const share = shares[row * names.length + column]
      const color = style.getPropertyValue(row === column ? "--green" : "--red")
      context.fillStyle = `color-mix(in srgb, ${color} ${(90 * Math.sqrt(share || 0)).toFixed(1)}%, ${style.getPropertyValue("--raised")})`
      context.fillRect(NAMES + column * cell, row * cell, cell - (cell > 5 ? 1 : 0), cell - (cell > 5 ? 1 : 0))
    }
  }
  if (marked == null) return
  context.strokeStyle = style.getPropertyValue("--blue")
  context.lineWidth = 2
  context.strokeRect(NAMES + marked.column * cell, marked.row * cell, cell, cell)
}

/**
 * @param {CanvasRenderingContext2D} context
 * @param {string} name
 */
function shortened(context, name) {
  let shown = name
  while (shown.length > 1 && context.measureText(shown).width > NAMES - 8) shown = shown.slice(0, -1)
  return shown === name ? name : `${shown.slice(0, -1)}…`
}

/**
 * @param {number} x px
 * @param {number} y px
 */
function textAt(x, y) {
  const cell = cellSize(latest("classes")?.confusion?.names.length ?? 0)
  return textOf(Math.floor(y / cell), Math.floor((x - NAMES) / cell))
}

/**
 * Return what a cell shows; "" if there is none.
 * @param {number} row
 * @param {number} column
 */
function textOf(row, column) {
  const data = latest("classes")?.confusion, classes = data?.names.length ?? 0
  if (data?.shares == null || data.counts == null) return ""
  if (row < 0 || row >= classes || column < 0 || column >= classes) return ""
  const at = row * classes + column, share = (100 * data.shares[at]).toFixed(1)
  return `${data.names[row]} taken for ${data.names[column]}: ${countOf(data.counts[at], "image")}, ${share} %`
}
