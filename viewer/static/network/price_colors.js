/** Coloring the nodes by what their removal costs, and staging the removal of the cheapest ones. */

import {byId, onEnabledClick, setButtonState} from "../shared/dom.js"
import {sendCommand, subscribe} from "../shared/link.js"
import {drawColorLegend} from "./color_name.js"

const MAX_COUNT = 999

export function startPriceColors() {
  const toggle = byId("price-colors"), stage = byId("stage-cheapest")
  const count = /** @type {HTMLInputElement} */ (byId("cheapest-count"))
  toggle.addEventListener("click", () => sendCommand("toggle_color_by_price"))
  onEnabledClick(stage, () => sendCommand("stage_remove_cheapest_in_network", {count: parseCount(count.value)}))
  subscribe("prices", ({shown, text, refusal}) => {
    toggle.setAttribute("aria-pressed", String(shown))
    drawColorLegend()
    byId("cheapest").hidden = !shown
    byId("price-note").textContent = text
    byId("price-note").title = text
    setButtonState(stage, refusal, "Stage the removal of the cheapest filters of all layers; the plans show what they cost together")
  })
}

/**
 * Return the number that an input holds, from 1 to `MAX_COUNT`.
 * @param {string} text
 */
export function parseCount(text) {
  const number = Math.trunc(Number(text))
  return Number.isFinite(number) ? Math.min(MAX_COUNT, Math.max(1, number)) : 1
}
