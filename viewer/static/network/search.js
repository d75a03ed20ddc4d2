/** The field that finds a layer by its name. */

import {byId} from "../shared/dom.js"
import {sendCommand} from "../shared/link.js"
import {showNotice} from "../shared/notice.js"
import {networkLayout} from "./network_model.js"

/**
 * @param {string[]} names
 * @param {string} text
 * @returns {number} index of the name that is the text, or else contains it; -1 if there is none
 */
export function findLayer(names, text) {
  const wanted = text.trim().toLowerCase()
  if (wanted === "") return -1
  const found = names.findIndex((name) => name.toLowerCase() === wanted)
  return found >= 0 ? found : names.findIndex((name) => name.toLowerCase().includes(wanted))
}

export function startSearch() {
  const field = /** @type {HTMLInputElement} */ (byId("search"))
  /** @param {boolean} isPreview amid typing: the blocks around the layer stay closed */
  const select = (isPreview) => {
    const names = networkLayout()?.layers.map(({name}) => name) ?? []
    const layer = findLayer(names, field.value)
    const option = isPreview && names[layer] !== field.value.trim() ? "preview" : ""
    const isUnknown = layer < 0 && field.value.trim() !== ""
    field.setAttribute("aria-invalid", String(isUnknown))
    if (layer >= 0) sendCommand("select_largest_gradient_filter", {layer, first: -1, last: -1, option})
    else if (isUnknown && !isPreview) showNotice(`No layer has "${field.value.trim()}" in its name`)
    return !isUnknown
  }
  field.addEventListener("input", () => select(true))
  field.addEventListener("keydown", (event) => {
    if (event.key === "Enter" && !select(false)) return
    if (event.key === "Enter" || event.key === "Escape") byId("plot").focus()
  })
}
