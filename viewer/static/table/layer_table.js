/** The table of all layers, in the place of the network: sortable, a row opens its layer. */

import {buttonsWith, byId, createElement, elements} from "../shared/dom.js"
import {fileName} from "../shared/file_name.js"
import {latest, sendCommand, subscribe} from "../shared/link.js"
import {saveFile} from "../shared/save_file.js"
import {barLengths, COLUMNS, describeTotals, layerCsv, NETWORK_ORDER, nextSorting, sortedOrder} from "./layer_rows.js"
import {moveBetweenRows} from "./row_keys.js"

/** @import {LayerTableData, LayerTableRow} from "../shared/parts.js" */
/** @import {Column, Sorting} from "./layer_rows.js" */

/** @type {Sorting} */
let sorting = NETWORK_ORDER
/** @type {LayerTableRow[]} */
let rows = []
/** @type {HTMLTableRowElement[]} one per layer, in the order of the network */
let rowElements = []
let awaitsFocus = false // opened by key, before its rows have arrived

const table = () => byId("layer-table")
const body = () => /** @type {HTMLElement} */ (table().querySelector("tbody"))
const statistics = () => latest("layer_statistics") ?? {}
const isShown = () => !table().hidden

export function startLayerTable() {
  table().querySelector("thead tr")?.append(...COLUMNS.map(headerCell))
  for (const button of buttonsWith("main-view")) {
    button.addEventListener("click", () => showMainView(button.dataset.mainView ?? "network"))
  }
  body().addEventListener("click", onRowClick)
  body().addEventListener("keydown", (event) => moveBetweenRows(event, body()))
  for (const event of ["pointerleave", "focusout"]) body().addEventListener(event, () => requestAnimationFrame(arrange))
  byId("layer-csv").addEventListener("click", saveCsv)
  subscribe("layer_table", drawRows)
  subscribe("layer_statistics", drawStatistics)
  subscribe("selection", markCurrent)
}

/** Show the table instead of the network, or the network again. */
export function toggleLayerTable() {
  showMainView(isShown() ? "network" : "table")
  awaitsFocus = isShown()
  if (isShown()) focusCurrent()
  else byId("plot").focus()
}

/** Focus the row of the open layer once there are rows: they arrive after the table is opened for the first time. */
function focusCurrent() {
  const current = /** @type {HTMLElement | null} */ (body().querySelector("button[tabindex='0']"))
  if (!awaitsFocus || current == null) return
  awaitsFocus = false
  current.focus()
}

/** @param {string} view "network" or "table" */
function showMainView(view) {
  const isTable = view === "table"
  table().hidden = !isTable
  byId("plot").inert = isTable // it goes on drawing behind the table, so that it is never out of date
  for (const legend of elements("#network .legend")) legend.hidden = isTable
  for (const button of buttonsWith("main-view")) button.setAttribute("aria-pressed", String(button.dataset.mainView === view))
  sendCommand("set_main_view", {option: view})
  if (isTable) body().querySelector("tr[data-current=true]")?.scrollIntoView({block: "nearest"})
}

/** @param {Column} column */
function headerCell(column) {
  const sort = () => {
    sorting = nextSorting(sorting, column)
    markSorting()
    arrange()
  }
  return createElement("th", {scope: "col", "data-column": column.key, "data-kind": column.kind},
    createElement("button", {title: `${column.hint}. Click to sort.`, onclick: sort}, column.title))
}

function markSorting() {
  for (const cell of table().querySelectorAll("thead th")) {
    const isSorted = /** @type {HTMLElement} */ (cell).dataset.column === sorting.key
    if (isSorted) cell.setAttribute("aria-sort", sorting.descending ? "descending" : "ascending")
    else cell.removeAttribute("aria-sort")
  }
}

/** @param {LayerTableData} data */
function drawRows({layers = []}) {
  const focused = rowElements.indexOf(/** @type {HTMLTableRowElement} */ (document.activeElement?.closest("tr")))
  const name = rows[focused]?.name
  rows = layers
  rowElements = rows.map(rowElement)
  body().replaceChildren(...rowElements)
  byId("layer-totals").textContent = describeTotals(rows)
  drawColumns(COLUMNS.filter(({statistic, bar}) => statistic == null && bar != null))
  markCurrent()
  const kept = rows.findIndex((row) => row.name === name)
  if (kept >= 0) rowElements[kept].querySelector("button")?.focus()
  focusCurrent()
}

/**
 * @param {LayerTableRow} row
 * @param {number} i
 */
function rowElement(row, i) {
  const cells = COLUMNS.map((column) => {
    const text = column.text(row, {}, i)
    const attributes = {"data-column": column.key, "data-kind": column.kind, title: column.statistic == null ? text : null}
    if (column.key !== "name") return createElement("td", attributes, text)
    const button = createElement("button", {tabindex: -1}, createElement("bdi", {dir: "ltr"}, text)) // see layer_table.css
    return createElement("th", {...attributes, scope: "row"}, button)
  })
  return createElement("tr", {"data-layer": row.name}, ...cells)
}

function drawStatistics() {
  if ((statistics().gradient?.length ?? 0) !== rows.length) return // of another network
  drawColumns(COLUMNS.filter(({statistic}) => statistic != null))
  arrange()
}

/**
 * Write the cells of some columns where their text has changed.
 * @param {Column[]} columns
 */
function drawColumns(columns) {
  const now = statistics()
  for (const column of columns) {
    const place = COLUMNS.indexOf(column), lengths = column.bar != null ? barLengths(column, rows, now) : null
    rows.forEach((row, i) => {
      const cell = rowElements[i].cells[place], text = column.text(row, now, i)
      if (cell.textContent !== text) cell.textContent = text
      if (lengths != null) cell.style.setProperty("--part", `${Math.round(100 * lengths[i])}%`)
      if (column.key === "dead") cell.dataset.some = String((now.dead?.[i] ?? 0) > 0)
    })
  }
}

/** Put the rows in order, but never while somebody points at one or has one focused: it must not move away. */
function arrange() {
  const element = body()
  if (rows.length === 0 || element.matches(":hover") || element.contains(document.activeElement)) return
  const ordered = sortedOrder(rows, statistics(), sorting).map((i) => rowElements[i])
  if (ordered.some((row, i) => row !== element.children[i])) element.append(...ordered)
}

/** Mark the row of the layer that is open; the Tab key goes there. */
function markCurrent() {
  const current = latest("selection")?.layer ?? -1
  rowElements.forEach((row, i) => {
    const isCurrent = i === current, button = row.querySelector("button")
    row.dataset.current = String(isCurrent)
    if (button == null) return
    button.tabIndex = isCurrent || current < 0 && i === 0 ? 0 : -1
    if (isCurrent) button.setAttribute("aria-current", "true")
    else button.removeAttribute("aria-current")
  })
}

/** @param {MouseEvent} event */
function onRowClick({target}) {
  const row = /** @type {HTMLTableRowElement | null} */ (/** @type {Element} */ (target).closest("tr"))
  const layer = row == null ? -1 : rowElements.indexOf(row)
  if (layer >= 0) sendCommand("select_largest_gradient_filter", {layer, first: -1, last: -1})
}

function saveCsv() {
  const name = fileName([latest("header")?.model ?? "", "layers"], "csv")
  saveFile(new Blob([layerCsv(rows, statistics())], {type: "text/csv"}), name)
}
