/** The tooltip of a node, and the preview of what an edit of its filter would remove together. */

import {createElement} from "../shared/dom.js"
import {formatNumber} from "../shared/format.js"
import {isNoFilterRequested, isFilterRequested, requestHoveredFilter} from "../shared/hovered_filter.js"
import {latest} from "../shared/link.js"
import {config} from "../shared/page_config.js"
import {DEAD_NOTE, SILENT_NOTE} from "../shared/silence.js"
import {nodeSelection} from "../shared/selection.js"
import {describeColorValue} from "./color_name.js"
import {blockOfLayer, filtersOfNode, networkLayout, numberOfNode} from "./network_model.js"

/** @type {Partial<Record<keyof typeof config.node_states, string>>} */
const STATE_NOTES = {
  dead: DEAD_NOTE,
  new: "new",
  staged: "staged for removal",
  coupled: "coupled with a staged filter",
  frozen: "frozen",
  absent: "does not exist yet at this batch",
}

/**
 * Request the coupled filters of a node; -1 if the pointer is on none.
 * @param {number} node
 */
export function previewCoupling(node) {
  if (node < 0) requestHoveredFilter(-1, -1)
  else requestHoveredFilter(filtersOfNode(node).layer, filtersOfNode(node).first)
}

/** @param {number} node */
function stateNote(node) {
  const state = numberOfNode("state", node)
  if (state === config.node_states.normal && numberOfNode("activation", node) === 0) return SILENT_NOTE
  const name = Object.entries(config.node_states).find(([, value]) => value === state)?.[0]
  return STATE_NOTES[/** @type {keyof typeof config.node_states} */ (name)]
}

/**
 * @param {string} label
 * @param {string} value
 * @param {string} statistic
 */
function line(label, value, statistic = "") {
  return createElement("div", {"data-statistic": statistic}, label, createElement("span", {}, value))
}

/**
 * What a click does.
 * @param {number} layer
 * @param {boolean} isBin
 */
function action(layer, isBin) {
  const block = blockOfLayer(layer)
  if (block != null) return `click to select · double-click to open ${block.path}`
  return isBin ? "click to select · double-click to expand" : "click to select, with Shift several · Del to remove"
}

/**
 * @param {number} node
 * @returns {HTMLElement[]} the rows of its tooltip
 */
export function describeNode(node) {
  const {layer, first, last} = filtersOfNode(node)
  const isBin = last > first
  const title = `${networkLayout()?.layers[layer]?.name} · ${isBin ? `filters ${first}–${last}` : `filter ${first}`}`
  const rows = [
    createElement("b", {}, title),
    line(isBin ? "mean |∇|, averaged" : "mean |∇|", formatNumber(numberOfNode("gradient", node)), "gradient"),
    line("Σ activation", formatNumber(numberOfNode("activation", node)), "activation"),
  ]
  const colored = describeColorValue(numberOfNode("colored_by", node))
  if (colored != null) rows.splice(1, 0, line(...colored))
  const norm = numberOfNode("weight_norm", node)
  if (norm != null && Number.isFinite(norm)) rows.push(line("weight norm", formatNumber(norm)))
  const coupling = latest("selection")?.coupling_text
  const isPreviewed = isFilterRequested(layer, first) || isNoFilterRequested() && node === nodeSelection().selected
  const notes = [
    isPreviewed && coupling ? createElement("small", {class: "coupled"}, coupling) : "",
    stateNote(node),
    action(layer, isBin),
  ]
  for (const note of notes) {
    if (note) rows.push(typeof note === "string" ? createElement("small", {}, note) : note)
  }
  return rows
}
