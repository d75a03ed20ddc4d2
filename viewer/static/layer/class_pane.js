/** The matrix of the filters of the opened layer and the classes that they answer to. */

import {buttonsWith, byId, createElement, markPressedButton} from "../shared/dom.js"
import {formatNumber} from "../shared/format.js"
import {latest, sendCommand, subscribe} from "../shared/link.js"
import {onThemeChange} from "../shared/theme.js"
import {BARS, LEVELS, cellAt, colorLevel, matrixLayout, moveCell} from "./class_matrix.js"
import {drawConfusionMatrix, startConfusionMatrix} from "./confusion.js"
import {context2d} from "./tile_atlas.js"

/** @import {MatrixLayout} from "./class_matrix.js" */
/** @import {ClassesData} from "../shared/parts.js" */

const NAMED_COLUMN = 12 // px; the names of narrower columns are not written
const MIN_LABEL = 10 // px of a row, to write the number of its filter
const HINT = "Point at a cell to read it; click to select its filter."
const MAX_STRENGTH = 92 // percent of the color of the strongest cell

/** The row and the column under the pointer, or chosen by key. @type {{row: number, column: number} | null} */
let marked = null
/** What the cell of the confusion under the pointer shows; "" for none. */
let confused = ""

export function startClassPane() {
  const canvas = matrix()
  for (const [attribute, command] of [["measure", "set_class_matrix_measure"], ["rows", "set_class_matrix_order"]]) {
    for (const button of buttonsWith(attribute)) {
      button.addEventListener("click", () => sendCommand(command, {option: button.dataset[attribute]}))
    }
  }
  subscribe("classes", drawPane)
  subscribe("class_colors", () => drawNames(latest("classes") ?? {}))
  onThemeChange(() => drawPane(latest("classes") ?? {}))
  startConfusionMatrix((text) => {
    confused = text
    describe()
  })
  canvas.addEventListener("pointermove", ({offsetX, offsetY}) => mark(cellUnder(offsetX, offsetY)))
  canvas.addEventListener("pointerleave", () => mark(null))
  canvas.addEventListener("blur", () => {
    mark(null)
    drawMatrix()
  })
  canvas.addEventListener("click", ({offsetX, offsetY}) => select(cellUnder(offsetX, offsetY)))
  canvas.addEventListener("keydown", onKey)
  new ResizeObserver(() => drawMatrix()).observe(byId("class-body"))
}

const matrix = () => /** @type {HTMLCanvasElement} */ (byId("class-matrix"))

/** @param {ClassesData} data */
function drawPane(data) {
  markPressedButton("measure", data.measure ?? "")
  markPressedButton("rows", data.order ?? "")
  const status = byId("classes-status"), isKnown = data.values != null
  status.textContent = data.status ?? ""
  status.hidden = isKnown
  byId("class-body").hidden = byId("class-tools").hidden = !isKnown
  byId("class-facts").textContent = [data.facts, data.note].filter(Boolean).join(" · ")
  drawConfusionMatrix()
  drawMatrix()
}

function layout() {
  const body = byId("class-body"), data = latest("classes")
  const names = byId("class-names").offsetHeight
  return matrixLayout(body.clientWidth - 2, body.clientHeight - names - 4, data?.filters?.length ?? 0, data?.classes?.length ?? 0)
}

function drawMatrix() {
  const data = latest("classes"), canvas = matrix()
  if (data?.values == null || byId("class-body").clientWidth === 0) return
  drawNames(data)
  const place = layout()
  canvas.width = Math.round(place.width * devicePixelRatio)
  canvas.height = Math.round(place.height * devicePixelRatio)
  canvas.style.width = `${place.width}px`
  canvas.style.height = `${place.height}px`
  canvas.setAttribute("aria-label", `Filters and classes: ${data.facts}. Arrow keys move between cells, Enter selects the filter.`)
  const context = context2d(canvas)
  context.scale(devicePixelRatio, devicePixelRatio)
  paintCells(context, data, place)
  paintRows(context, data, place)
  if (canvas.matches(":focus-visible")) outlineMarked(context, place)
  describe()
}

/**
 * Outline the cell that was chosen by key.
 * @param {CanvasRenderingContext2D} context
 * @param {MatrixLayout} place
 */
function outlineMarked(context, {left, column, row}) {
  if (marked == null) return
  context.strokeStyle = getComputedStyle(matrix()).getPropertyValue("--blue")
  context.lineWidth = 2
  context.strokeRect(left + marked.column * column, marked.row * row, column, row)
}

/** @param {ClassesData} data */
function drawNames({classes = []}) {
  const {left, column} = layout(), shown = latest("class_colors")?.chosen
  const names = byId("class-names"), key = JSON.stringify(classes.map(({index, name}) => [index, name]))
  names.style.paddingLeft = `${left}px`
  names.dataset.narrow = String(column < NAMED_COLUMN)
  if (names.dataset.key !== key) { // a button that is replaced would lose the click and the focus
    names.dataset.key = key
    names.replaceChildren(...classes.map(nameButton))
  }
  for (const [i, {index, name, images}] of classes.entries()) {
    const button = /** @type {HTMLElement} */ (names.children[i])
    button.setAttribute("aria-pressed", String(index === shown))
    button.title = `${name}: ${images} images (weighted). Color the nodes by it`
    button.style.width = `${column}px`
  }
}

/** @param {{index: number, name: string}} class_ */
function nameButton({index, name}) {
  const onclick = () => sendCommand("color_nodes_by_class_response", {first: index === latest("class_colors")?.chosen ? -1 : index})
  return createElement("button", {onclick}, name)
}

/**
 * @param {CanvasRenderingContext2D} context
 * @param {ClassesData} data
 * @param {MatrixLayout} place
 */
function paintCells(context, {values, limit = 1, filters, classes}, {left, column, row}) {
  if (values == null || filters == null || classes == null || classes.length === 0) return
  const columns = classes.length, rows = filters.length, table = levelColors()
  const pixels = new ImageData(columns, rows)
  for (let i = 0; i < rows * columns; i++) {
    const level = colorLevel(values[i], limit)
    pixels.data.set(table.subarray(4 * level, 4 * level + 4), 4 * i)
  }
  const small = new OffscreenCanvas(columns, rows)
  small.getContext("2d")?.putImageData(pixels, 0, 0)
  context.imageSmoothingEnabled = false
  context.drawImage(small, left, 0, columns * column, rows * row)
}

/** Return the colors of all levels in the colors of the theme: blue below 0, orange above (LEVELS × 4). */
function levelColors() {
  const style = getComputedStyle(matrix()), ramp = new OffscreenCanvas(LEVELS, 1)
  const context = /** @type {OffscreenCanvasRenderingContext2D} */ (ramp.getContext("2d"))
  for (let level = 0; level < LEVELS; level++) {
    const share = 2 * level / (LEVELS - 1) - 1
    const color = style.getPropertyValue(share < 0 ? "--blue" : "--orange")
    context.fillStyle = `color-mix(in srgb, ${color} ${(MAX_STRENGTH * Math.abs(share)).toFixed(1)}%, ${style.getPropertyValue("--raised")})`
    context.fillRect(level, 0, 1, 1)
  }
  return context.getImageData(0, 0, LEVELS, 1).data
}

/**
 * Write the numbers of the filters, and draw how selective each is and how far its classes disagree.
 * @param {CanvasRenderingContext2D} context
 * @param {ClassesData} data
 * @param {MatrixLayout} place
 */
function paintRows(context, {filters, selectivity, conflict, selected = []}, {left, row, bars, width}) {
  if (filters == null || selectivity == null || conflict == null) return
  const style = getComputedStyle(matrix()), chosen = new Set(selected)
  const bar = (width - bars) / BARS
  context.font = `${Math.min(11, row - 1)}px ${style.getPropertyValue("--font")}`
  context.textAlign = "right"
  context.textBaseline = "middle"
  for (let at = 0; at < filters.length; at++) {
    const y = at * row
    const isChosen = chosen.has(at)
    context.fillStyle = style.getPropertyValue(isChosen ? "--text" : "--muted")
    if (row >= MIN_LABEL) context.fillText(String(filters[at]), left - 6, y + row / 2)
    else if (isChosen) context.fillRect(left - 8, y, 4, row)
    for (const [i, [share, color]] of [[selectivity[at], "--green"], [conflict[at], "--red"]].entries()) {
      context.fillStyle = style.getPropertyValue(String(color))
      context.fillRect(bars + i * bar, y + Math.min(2, row / 4), Math.max(1, Number(share) * (bar - 6)), Math.max(1, row - 2 * Math.min(2, row / 4)))
    }
    if (isChosen) {
      context.strokeStyle = style.getPropertyValue("--text")
      context.strokeRect(left + 0.5, y + 0.5, bars - left - 9, Math.max(1, row - 1))
    }
  }
}

/* ------------------------------------------------------------------------------------- cells */

/**
 * @param {number} x px
 * @param {number} y px
 */
function cellUnder(x, y) {
  const data = latest("classes")
  return cellAt(layout(), x, y, data?.filters?.length ?? 0, data?.classes?.length ?? 0)
}

/** @param {{row: number, column: number} | null} cell */
function mark(cell) {
  if (cell?.row === marked?.row && cell?.column === marked?.column) return
  marked = cell
  describe()
}

/** Say what the marked cell shows. */
function describe() {
  const data = latest("classes"), at = marked
  if (at == null || data?.values == null || data.filters == null || at.row >= data.filters.length) {
    byId("class-cell").textContent = confused || HINT
    return
  }
  const {values, classes = [], filters, selectivity, conflict, measure} = data
  const parts = [`filter ${filters[at.row]}`]
  if (at.column >= 0 && at.column < classes.length) {
    const number = values[at.row * classes.length + at.column]
    const value = Number.isNaN(number) ? "unknown" : formatNumber(number).replace("-", "−")
    parts.push(`${classes[at.column].name}: ${measure === "gradient" ? `pull ${value}` : `${value} σ above its mean`}`)
  }
  parts.push(`selectivity ${(selectivity?.[at.row] ?? 0).toFixed(2)}`, `conflict ${(conflict?.[at.row] ?? 0).toFixed(2)}`)
  byId("class-cell").textContent = parts.join(" · ")
}

/** @param {{row: number, column: number} | null} cell */
function select(cell) {
  const data = latest("classes")
  if (cell == null || data?.filters == null) return
  const first = data.filters[cell.row]
  sendCommand("select_largest_gradient_filter", {layer: data.layer, first, last: first})
}

/** @param {KeyboardEvent} event */
function onKey(event) {
  const data = latest("classes"), rows = data?.filters?.length ?? 0, columns = data?.classes?.length ?? 0
  if (rows === 0) return
  if (event.key === "Enter" && marked != null) select(marked)
  else if (event.key.startsWith("Arrow")) {
    mark(marked == null ? {row: 0, column: 0} : moveCell(marked, event.key, rows, columns))
    drawMatrix()
  } else return
  event.preventDefault()
  event.stopPropagation() // the arrow keys of the page move the selection
}
