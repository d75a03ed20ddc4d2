/** Where one more filter would lower the loss most: heat on the headers of the layers, and buttons. */

import {byId, createElement, onEnabledClick, redrawChildren} from "../shared/dom.js"
import {latest, sendCommand, subscribe} from "../shared/link.js"
import {deferDrawWhilePressed} from "../shared/press.js"

/** @import {GrowthRow, LayerHeader} from "../shared/parts.js" */

const SHOWN = 6

export function startGrowthGains() {
  onEnabledClick(byId("request-growth"), () => sendCommand("request_growth_gains"))
  const draw = deferDrawWhilePressed(byId("growth"), () => {
    const rows = latest("growth")?.rows ?? []
    redrawChildren(byId("growth"), ...rows.slice(0, SHOWN).map(rowElement))
  })
  subscribe("growth", ({text, pending}) => {
    byId("growth-note").textContent = text
    byId("request-growth").setAttribute("aria-busy", String(pending))
    draw()
  })
}

/** @param {GrowthRow} row */
function rowElement({layer, text, title, heat}) {
  const button = createElement("button", {
    class: "chip", "data-key": text, title: `${title}. Stage a new filter in this direction`,
    onclick: () => sendCommand("stage_add_best_direction", {layer}),
  }, text)
  button.style.setProperty("--heat", String(heat))
  return createElement("li", {}, button)
}

/**
 * Show the heat below the headers of the layers, or remove it.
 * @param {Map<LayerHeader, HTMLElement>} layers
 */
export function markGrowthGains(layers) {
  const rows = latest("growth")?.rows ?? []
  for (const [{index}, element] of layers) {
    const row = rows.find(({layer}) => layer === index)
    const known = /** @type {HTMLElement | null} */ (element.querySelector(":scope > .heat"))
    if (row == null) {
      known?.remove()
      continue
    }
    const heat = known ?? element.appendChild(createElement("i", {class: "heat", role: "img"}))
    heat.style.setProperty("--heat", String(row.heat))
    heat.title = row.title
    heat.setAttribute("aria-label", row.title)
  }
}
