/** Marks on the way of the paths: modules that have no filters, such as pooling and normalization. */

import {byId, createElement} from "../shared/dom.js"
import {sendCommand, subscribe} from "../shared/link.js"
import {hideTooltip, showTooltip} from "../shared/tooltip.js"

/** @import {MarkRow, FilterlessModule} from "../shared/parts.js" */
/** @import {Viewport} from "./viewport.js" */

const HALF = 4.5 // px: half of the width that the pointer can hit

export class ModuleMarks {
  /** @type {[MarkRow, HTMLElement][]} */
  #marks = []

  /** @param {Viewport} viewport */
  constructor(viewport) {
    this.viewport = viewport
    const button = byId("toggle-modules")
    button.addEventListener("click", () => sendCommand("toggle_module_marks"))
    subscribe("marks", ({shown = false, available = false, rows = []}) => {
      button.hidden = !available
      button.setAttribute("aria-pressed", String(shown))
      this.#marks = rows.map((row) => [row, markElement(row)])
      hideTooltip("module")
      byId("marks").replaceChildren(...this.#marks.map(([, element]) => element))
      this.place()
    })
  }

  /** Put the marks where they are in view. */
  place() {
    for (const [{x, top, bottom}, element] of this.#marks) {
      const [left, upper] = this.viewport.toScreen(x, top), [, lower] = this.viewport.toScreen(x, bottom)
      element.style.transform = `translate(${(left - HALF).toFixed(1)}px, ${upper.toFixed(1)}px)`
      element.style.height = `${(lower - upper).toFixed(1)}px`
    }
  }
}

/** @param {MarkRow} row */
function markElement({label, modules}) {
  const text = modules.map(({name, type, before, after}) => `${name} ${type}, ${before} to ${after}`).join("; ")
  const element = createElement("div", {
    class: "mark", role: "img", "aria-label": text,
    onpointerenter: (/** @type {PointerEvent} */ event) => showTooltip("module", event, modules.flatMap(description), "right"),
    onpointerleave: () => hideTooltip("module"),
  }, label && createElement("span", {}, label))
  return element
}

/** @param {FilterlessModule} module */
function description({name, type, before, after}) {
  return [
    createElement("b", {}, name || type),
    createElement("div", {}, name && type, createElement("span", {}, before === after ? before : `${before} → ${after}`)),
  ]
}
