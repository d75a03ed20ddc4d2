/** The tooltip of a node, and the preview of what an edit of its filter would remove together. */

import {createElement} from "../shared/dom.js"
import {formatNumber} from "../shared/format.js"
import {isNoneRequested, isRequested, requestHovered} from "../shared/hovered_filter.js"
import {latest} from "../shared/link.js"
import {config} from "../shared/page_config.js"
import {DEAD_NOTE, SILENT_NOTE} from "../shared/silence.js"
import {nodeSelection} from "../shared/selection.js"
import {colorValue} from "./color_name.js"
import {blockOfLayer, filtersOf, networkLayout, numberOf} from "./network_model.js"

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
  if (node < 0) requestHovered(-1, -1)
  else requestHovered(filtersOf(node).layer, filtersOf(node).first)
}

/** @param {number} node */
function stateNote(node) {
  const state = numberOf("state", node)
  if (state === config.node_states.normal && numberOf("activation", node) === 0) return SILENT_NOTE
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
  const {layer, first, last} = filtersOf(node)
  const isBin = last > first
  const title = `${networkLayout()?.layers[layer]?.name} · ${isBin ? `filters ${first}–${last}` : `filter ${first}`}`
  const rows = [
    createElement("b", {}, title),
    line(isBin ? "mean |∇|, averaged" : "mean |∇|", formatNumber(numberOf("gradient", node)), "gradient"),
    line("Σ activation", formatNumber(numberOf("activation", node)), "activation"),
  ]
  const colored = colorValue(numberOf("colored_by", node))
  if (colored != null) rows.splice(1, 0, line(...colored))
  const norm = numberOf("weight_norm", node)
  if (norm != null && Number.isFinite(norm)) rows.push(line("weight norm", formatNumber(norm)))
  const coupling = latest("selection")?.coupling_text
  const isPreviewed = isRequested(layer, first) || isNoneRequested() && node === nodeSelection().selected
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
