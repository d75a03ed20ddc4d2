/** Dots on the headers of the layers on which there are verdicts, and of the closed blocks with such layers. */

import {createElement} from "../shared/dom.js"
import {latest} from "../shared/link.js"

/** @import {BlockHeader, LayerHeader} from "../shared/parts.js" */

/**
 * @param {Map<LayerHeader, HTMLElement>} layers
 * @param {Map<BlockHeader, {header: HTMLElement}>} blocks
 */
export function markVerdicts(layers, blocks) {
  const badges = latest("verdicts")?.badges ?? []
  for (const [{index, name}, element] of layers) {
    const badge = badges.find(({layer}) => layer === index)
    mark(element, badge?.kind, badge == null ? "" : `${name}: ${badge.text}`)
  }
  for (const [{first, layers: count}, {header}] of blocks) {
    const inside = badges.filter(({layer}) => first <= layer && layer < first + count)
    mark(header, inside[0]?.kind, inside.map(({text}) => text).join(", "))
  }
}

/**
 * Show a dot on a header, or remove it.
 * @param {HTMLElement} header
 * @param {string | undefined} kind of the verdict
 * @param {string} text
 */
function mark(header, kind, text) {
  const known = /** @type {HTMLElement | null} */ (header.querySelector(":scope > .verdict"))
  if (kind == null) {
    known?.remove()
    return
  }
  const dot = known ?? header.appendChild(createElement("i", {class: "verdict", role: "img"}))
  dot.dataset.kind = kind
  dot.title = text
  dot.setAttribute("aria-label", text)
}
