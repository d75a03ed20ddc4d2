/** The page's one tooltip, shared by the network view, the thumbnails and the top images. */

import {byId} from "./dom.js"
import {clamp} from "./math.js"

const GAP = 17 // px between pointer and tooltip
const MARGIN = 8 // px between tooltip and window

/** @typedef {"network" | "module" | "layer" | "inspection"} TooltipOwner the part of the page that shows it */

/**
 * Show the tooltip beside the pointer.
 * @param {TooltipOwner} owner
 * @param {{clientX: number, clientY: number}} pointer
 * @param {Node[]} children what it shows
 * @param {"left" | "right"} side of the pointer, where there is room for it
 */
export function showTooltip(owner, pointer, children, side) {
  const tooltip = byId("tooltip")
  tooltip.dataset.owner = owner
  tooltip.hidden = false
  tooltip.replaceChildren(...children)
  moveTooltip(pointer, side)
}

/**
 * @param {{clientX: number, clientY: number}} pointer
 * @param {"left" | "right"} side
 */
export function moveTooltip({clientX, clientY}, side) {
  const tooltip = byId("tooltip"), width = tooltip.offsetWidth, height = tooltip.offsetHeight
  const left = clientX - GAP - width, right = clientX + GAP
  const fits = side === "left" ? left >= MARGIN : right + width <= innerWidth
  const x = (side === "left") === fits ? left : right
  const y = clamp(clientY - height / 2, MARGIN, innerHeight - height - MARGIN)
  tooltip.style.transform = `translate(${Math.round(x)}px, ${Math.round(y)}px)`
}

/**
 * Replace what the tooltip shows, if it is visible and shown by this owner.
 * @param {TooltipOwner} owner
 * @param {() => Node[]} describe
 */
export function refreshTooltip(owner, describe) {
  if (isTooltipOf(owner)) byId("tooltip").replaceChildren(...describe())
}

/**
 * Hide the tooltip, if it is shown by this owner.
 * @param {TooltipOwner} owner
 */
export function hideTooltip(owner) {
  if (isTooltipOf(owner)) byId("tooltip").hidden = true
}

/** @param {TooltipOwner} owner */
export function isTooltipOf(owner) {
  const tooltip = byId("tooltip")
  return !tooltip.hidden && tooltip.dataset.owner === owner
}
