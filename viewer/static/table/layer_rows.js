/** The columns of the table of layers: their texts, their order, and all of them as CSV. */

import {csvTable} from "../shared/csv.js"
import {countOf, formatCount, formatNumber, formatSi, joinFacts} from "../shared/format.js"

/** @import {LayerStatisticsData, LayerTableRow} from "../shared/parts.js" */

/** @typedef {"gradient" | "activation" | "update_ratio" | "dead"} Statistic */

/**
 * @typedef {object} Column
 * @property {string} key
 * @property {string} title
 * @property {string} hint what the column shows
 * @property {"text" | "number"} kind
 * @property {Statistic} [statistic] the column changes with every batch
 * @property {"linear" | "log"} [bar] the cell has a bar as long as the value is large
 * @property {(row: LayerTableRow, statistics: LayerStatisticsData, i: number) => string | number} value to sort by
 * @property {(row: LayerTableRow, statistics: LayerStatisticsData, i: number) => string} text
 */

/** @typedef {{key: string, descending: boolean}} Sorting a key of no column: the order of the network */

/** @type {Sorting} */
export const NETWORK_ORDER = {key: "", descending: false}

/** @type {Column[]} */
export const COLUMNS = [
  {key: "name", title: "Layer", hint: "Name of the module", kind: "text", value: ({name}) => name, text: ({name}) => name},
  {key: "type", title: "Type", hint: "Class of the module", kind: "text", value: ({type}) => type, text: ({type}) => type},
  {key: "shape", title: "Shape", hint: "Input channels → filters, kernel, stride and groups; sorted by the number of filters",
   kind: "number", value: ({filters}) => filters, text: describeShape},
  {key: "output", title: "Output", hint: "Filters × positions of the output", kind: "number",
   value: ({filters, output}) => output == null ? NaN : output.reduce((product, length) => product * length, filters),
   text: ({filters, output}) => output == null ? "–" : [filters, ...output].join("×")},
  {key: "parameters", title: "Parameters", hint: "Weights and biases", kind: "number", bar: "linear",
   value: ({parameters}) => parameters || NaN, text: ({parameters}) => parameters ? formatCount(parameters) : "–"},
  {key: "macs", title: "MACs", hint: "Multiply-accumulates of one sample", kind: "number", bar: "linear",
   value: ({macs}) => macs || NaN, text: ({macs}) => macs ? formatSi(macs) : "–"},
  statisticColumn("gradient", "mean |∇|", "Mean absolute gradient, averaged over the filters", "log"),
  statisticColumn("activation", "Σ act", "Σ activation, averaged over the filters", "log"),
  statisticColumn("update_ratio", "Update", "Update ratio ‖Δw‖ / ‖w‖, averaged over the filters", "log"),
  {key: "dead", title: "Dead", hint: "Dead filters; sorted by their share", kind: "number", statistic: "dead",
   value: ({filters}, {dead}, i) => (dead?.[i] ?? NaN) / filters,
   text: (_, {dead}, i) => dead == null ? "–" : formatCount(dead[i])},
]

/**
 * @param {"gradient" | "activation" | "update_ratio"} statistic
 * @param {string} title
 * @param {string} hint
 * @param {"log"} bar
 * @returns {Column}
 */
function statisticColumn(statistic, title, hint, bar) {
  return {
    key: statistic, title, hint, kind: "number", statistic, bar,
    value: (_, statistics, i) => statistics[statistic]?.[i] ?? NaN,
    text: (_, statistics, i) => formatNumber(statistics[statistic]?.[i]),
  }
}

/** @param {LayerTableRow} row */
export function describeShape({inputs, filters, kernel, stride, groups}) {
  const steps = Math.max(1, ...stride) > 1 ? ` /${[...new Set(stride)].join("×")}` : ""
  const window = kernel.length > 0 ? ` · ${kernel.join("×")}${steps}` : ""
  return `${inputs}→${filters}${window}${groups > 1 ? ` · ${groups} groups` : ""}`
}

/**
 * Return the indices of the rows in the order in which the table shows them. What has no value comes last.
 * @param {LayerTableRow[]} rows
 * @param {LayerStatisticsData} statistics
 * @param {Sorting} sorting
 */
export function sortedOrder(rows, statistics, {key, descending}) {
  const order = rows.map((_, i) => i), column = COLUMNS.find((one) => one.key === key)
  if (column == null) return order
  const values = rows.map((row, i) => column.value(row, statistics, i)), sign = descending ? -1 : 1
  return order.sort((a, b) => compare(values[a], values[b], sign) || a - b)
}

/**
 * @param {string | number} a
 * @param {string | number} b
 * @param {number} sign
 */
function compare(a, b, sign) {
  if (typeof a === "string" || typeof b === "string") return sign * String(a).localeCompare(String(b), undefined, {numeric: true})
  if (Number.isNaN(a) || Number.isNaN(b)) return Number(Number.isNaN(a)) - Number(Number.isNaN(b))
  return sign * (a - b)
}

/**
 * Return the sorting after a click on a column's title: first as is usual for it, then reversed, then as in the network.
 * @param {Sorting} sorting
 * @param {Column} column
 * @returns {Sorting}
 */
export function nextSorting(sorting, {key, kind}) {
  const first = {key, descending: kind === "number"}
  if (sorting.key !== key) return first
  return sorting.descending === first.descending ? {key, descending: !first.descending} : NETWORK_ORDER
}

/**
 * Return how long the bar of each cell of a column is, 0 to 1.
 * @param {Column} column
 * @param {LayerTableRow[]} rows
 * @param {LayerStatisticsData} statistics
 */
export function barLengths(column, rows, statistics) {
  const scale = column.bar === "log" ? Math.log : (/** @type {number} */ value) => value
  const values = rows.map((row, i) => scale(Number(column.value(row, statistics, i))))
  const finite = values.filter(Number.isFinite), low = column.bar === "log" ? Math.min(...finite) : 0
  const range = Math.max(...finite) - low
  return values.map((value) => Number.isFinite(value) ? range > 0 ? (value - low) / range : 1 : 0)
}

const CSV_COLUMNS = [
  "layer", "type", "in_channels", "out_channels", "kernel", "stride", "groups", "output_size",
  "parameters", "macs", "mean_abs_gradient", "activation", "update_ratio", "dead_filters", "frozen_filters",
]

/**
 * @param {LayerTableRow[]} rows
 * @param {LayerStatisticsData} statistics
 */
export function layerCsv(rows, statistics) {
  const {gradient, activation, update_ratio: updateRatio, dead} = statistics
  return csvTable(CSV_COLUMNS, rows.map((row, i) => [
    row.name, row.type, row.inputs, row.filters, row.kernel.join("x"), row.stride.join("x"), row.groups,
    row.output?.join("x"), row.parameters || null, row.macs || null,
    gradient?.[i], activation?.[i], updateRatio?.[i], dead?.[i], row.frozen,
  ]))
}

/** @param {LayerTableRow[]} rows */
export function describeTotals(rows) {
  const sum = (/** @type {(row: LayerTableRow) => number} */ value) => rows.reduce((total, row) => total + value(row), 0)
  const macs = sum((row) => row.macs)
  return joinFacts([
    countOf(rows.length, "layer"), countOf(sum((row) => row.filters), "filter"),
    `${formatCount(sum((row) => row.parameters))} parameters`, macs > 0 && `${formatSi(macs)} multiply-accumulates`,
  ])
}
