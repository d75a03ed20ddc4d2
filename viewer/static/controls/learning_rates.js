/** The panel of learning rates, weight decays and gradient clipping: the values in force, and a field for a new one of each. */

import {byId, createElement} from "../shared/dom.js"
import {parseRate} from "../shared/format.js"
import {sendCommand} from "../shared/link.js"
import {showNotice} from "../shared/notice.js"
import {clippingSection, drawClipping} from "./clipping.js"

/** @import {Clipping, ParameterGroup, ParameterValue} from "../shared/parts.js" */

const NO_RATE = "Enter a number from 0, for example 0.001 or 1e-3"
const NO_OPTIMIZERS = "The training has not reported its optimizers yet"

export function startLearningRates() {
  const button = byId("rates"), panel = byId("rates-panel")
  button.addEventListener("click", () => {
    panel.hidden = !panel.hidden
    button.setAttribute("aria-expanded", String(!panel.hidden))
  })
}

/**
 * Draw the values in force, each with one that is requested until the training has replied. What was typed stays.
 * @param {ParameterGroup[]} groups
 * @param {Clipping | null} clipping
 * @param {string} refusal why no value can be set; empty if one can
 */
export function drawLearningRates(groups, clipping, refusal) {
  const panel = byId("rates-panel")
  const shape = JSON.stringify([...groups.map(({title, values}) => [title, values.length]), clipping != null])
  if (panel.dataset.shape !== shape) {
    panel.dataset.shape = shape
    panel.replaceChildren(...groups.length > 0 ? groups.map(section) : [NO_OPTIMIZERS])
    if (clipping != null && groups.length > 0) panel.append(clippingSection(clipping))
  }
  groups.forEach(({values, note}, i) => {
    const rows = panel.children[i].children
    values.forEach((value, j) => drawValue(/** @type {HTMLElement} */ (rows[j + 1]), value)) // + 1: after the heading
    rows[values.length + 1].textContent = note
  })
  for (const element of panel.querySelectorAll("input, button")) {
    const control = /** @type {HTMLInputElement | HTMLButtonElement} */ (element)
    control.disabled = refusal !== ""
    control.title = refusal
  }
  if (clipping != null && groups.length > 0) drawClipping(/** @type {HTMLElement} */ (panel.lastElementChild), clipping, refusal)
}

/**
 * @param {HTMLElement} row
 * @param {ParameterValue} value
 */
function drawValue(row, {text, requested}) {
  const output = /** @type {HTMLElement} */ (row.querySelector("output"))
  output.textContent = text
  output.dataset.requested = requested
}

/** @param {ParameterGroup} group */
function section(group) {
  return createElement("section", {}, createElement("h3", {}, group.title),
    ...group.values.map((value) => field(group, value)), createElement("p", {class: "note"}, group.note))
}

/**
 * @param {ParameterGroup} group
 * @param {ParameterValue} value
 */
function field({optimizer, group}, {name, label, text}) {
  const input = createElement("input", {type: "text", inputmode: "decimal", "aria-label": `New ${label}`, placeholder: "new value"})
  const output = createElement("output", {}, text)
  const row = createElement("form", {class: "rate", "data-name": name},
    createElement("span", {}, label), output, input, createElement("button", {}, "Set"))
  row.addEventListener("submit", (event) => {
    event.preventDefault()
    const value = parseRate(input.value)
    input.setAttribute("aria-invalid", String(value == null))
    if (value == null) {
      showNotice(NO_RATE)
      return
    }
    sendCommand("set_hyperparameter", {optimizer, group, name, value})
    input.value = ""
  })
  return row
}
