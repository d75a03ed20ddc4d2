/** What a view shows, as a table in CSV. */

import {csvTable} from "../shared/csv.js"

/**
 * @typedef {object} FilterRow
 * @property {number} index
 * @property {number} id
 * @property {number} x
 * @property {number} y
 * @property {string} degenerate why the filter has no place among the others
 * @property {number} gradient
 * @property {number} activation
 */

const HEADER = ["filter", "id", "x", "y", "degenerate", "mean_abs_gradient", "activation"]

/** @param {FilterRow[]} rows */
export function filterTable(rows) {
  return csvTable(HEADER, rows.map(({index, id, x, y, degenerate, gradient, activation}) =>
    [index, id, x, y, degenerate, gradient, activation]))
}
