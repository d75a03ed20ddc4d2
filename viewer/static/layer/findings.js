/** The findings about the layer's filters, such as near duplicates, as buttons that select the filters. */

import {byId, createElement, redrawChildren} from "../shared/dom.js"
import {config} from "../shared/page_config.js"
import {filterSelection, selectFilters} from "./filter_selection.js"

/** @import {FindingData} from "../shared/parts.js" */

let drawnKey = ""

/**
 * @param {FindingData[] | null} findings null before they are known
 * @param {boolean} knowsDeadFilters whether enough batches were recorded to know which filters are dead
 */
export function drawFindings(findings, knowsDeadFilters) {
  const key = JSON.stringify([findings, filterSelection.selected, knowsDeadFilters])
  if (key === drawnKey) return
  drawnKey = key
  redrawChildren(byId("findings"), ...findings == null ? [] : elementsOf(findings, knowsDeadFilters))
}

/**
 * @param {FindingData[]} findings
 * @param {boolean} knowsDeadFilters
 */
function elementsOf(findings, knowsDeadFilters) {
  if (findings.length > 0) return findings.map(findingButton)
  return [createElement("span", {class: "faint"}, noFindings(knowsDeadFilters))]
}

/** @param {boolean} knowsDeadFilters */
function noFindings(knowsDeadFilters) {
  return `no near duplicates, ${knowsDeadFilters ? "no dead filters" : `dead filters known after ${config.dead_batches} batches`}`
}

/** @param {FindingData} finding */
function findingButton({kind, text, advice, groups}) {
  const {selected} = filterSelection, current = groups.findIndex((group) => isSameSet(group, selected))
  const inGroup = `near duplicates: group ${current + 1} of ${groups.length} (${groups[current]?.length} filters)`
  return createElement("button", {
    class: "chip",
    "data-kind": kind,
    "data-key": kind,
    "aria-pressed": String(current >= 0),
    title: `${advice} Click to select ${groups.length > 1 ? "one group after the other" : "them"}.`,
    onclick: () => selectFilters(nextGroup(groups, filterSelection.selected[0])),
  }, groups.length > 1 && current >= 0 ? inGroup : text)
}

/**
 * Return the group after the one that holds the selected filter; after the last comes the first.
 * @param {number[][]} groups
 * @param {number} selectedId
 */
export function nextGroup(groups, selectedId) {
  return groups[(groups.findIndex((group) => group.includes(selectedId)) + 1) % groups.length]
}

/**
 * @param {number[]} group without repetitions
 * @param {number[]} ids without repetitions
 */
export function isSameSet(group, ids) {
  return group.length === ids.length && group.every((id) => ids.includes(id))
}
