/** Which filters of the layer are selected, hovered, staged and frozen: what all its views share. */

import {sendCommand} from "../shared/link.js"
import {showNotice} from "../shared/notice.js"

/** @import {LayerPanelData} from "../shared/parts.js" */

const CONFIRM_MS = 500 // for so long the user's own selection outranks an older one of the server

/** Ids of filters. */
export const filterSelection = {
  /** @type {number[]} */
  selected: [],
  /** @type {number | null} */
  hovered: null,
  /** @type {Set<number>} to be removed */
  staged: new Set(),
  /** @type {Set<number>} */
  frozen: new Set(),
  /** @type {Set<number>} */
  dead: new Set(),
}

/** @type {(() => void)[]} */
const callbacks = []
/** @type {((ids: number[]) => void)[]} */
const selectCallbacks = []
let selectedAt = -Infinity

/** @param {() => void} callback called after anything of it has changed */
export function onSelectionChange(callback) {
  callbacks.push(callback)
}

/** @param {(ids: number[]) => void} callback called when the user selects filters in this panel */
export function onFilterSelect(callback) {
  selectCallbacks.push(callback)
}

/**
 * Select filters. The page shows the selection before the server confirms it.
 * @param {number[]} ids none: the selection stays
 */
export function selectFilters(ids) {
  if (ids.length === 0) return
  filterSelection.selected = ids
  selectedAt = performance.now()
  notify()
  for (const callback of selectCallbacks) callback(ids)
  sendCommand("select_filters_by_id", {ids})
}

/**
 * Select a filter, or with `extend` add it to the selection or remove it from there.
 * @param {number} id
 * @param {boolean} extend
 */
export function clickFilter(id, extend) {
  const {selected} = filterSelection
  if (!extend) selectFilters([id])
  else selectFilters(selected.includes(id) ? selected.filter((other) => other !== id) : [id, ...selected])
}

/**
 * Move the selection to a filter, or with `extend` add it; a step back to the filter before releases the last one.
 * @param {number} id
 * @param {boolean} extend
 */
export function moveSelection(id, extend) {
  const {selected} = filterSelection
  const kept = selected[1] === id ? selected.slice(1) : selected
  selectFilters(extend ? [id, ...kept.filter((other) => other !== id)] : [id])
}

/** Stage setting the filter that was selected last to the mean of the other selected ones. */
export function setPrimaryToMean() {
  const ids = filterSelection.selected
  if (ids.length > 1) sendCommand("stage_filter_as_weighted_mean", {ids, weights: ids.slice(1).map(() => 1 / (ids.length - 1))})
  else showNotice("Select several filters: the one selected last becomes the mean of the others")
}

/** @param {number | null} id */
export function hoverFilter(id) {
  if (id === filterSelection.hovered) return
  filterSelection.hovered = id
  notify()
}

/**
 * Apply the server's state, but no selection that is older than the user's.
 * @param {LayerPanelData} data
 */
export function receiveSelection(data) {
  const isOwn = performance.now() - selectedAt < CONFIRM_MS && String(filterSelection.selected) !== String(data.selected)
  if (!isOwn) filterSelection.selected = data.selected
  filterSelection.staged = new Set(data.staged)
  filterSelection.frozen = new Set(data.frozen ?? [])
  filterSelection.dead = new Set(data.dead ?? [])
  notify()
}

function notify() {
  for (const callback of callbacks) callback()
}
