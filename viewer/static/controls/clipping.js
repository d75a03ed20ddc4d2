/** Gradient clipping: a row in the panel of learning rates, and the number of a staged change. */

import {createElement} from "../shared/dom.js"
import {parseRate} from "../shared/format.js"
import {sendCommand} from "../shared/link.js"
import {showNotice} from "../shared/notice.js"

/** @import {Clipping, StagedRow} from "../shared/parts.js" */

const NO_LIMIT = "Enter a number from 0, for example 1 or 0.5; 0 stops clipping"
const NOTES = {
  norm: "Scale all gradients of an optimizer so that their norm together is at most this",
  value: "Limit each component of the gradients to this",
}

/**
 * The row of the panel: the clipping in force, and a field for a new one.
 * @param {Clipping} clipping
 */
export function clippingSection({text, algorithm}) {
  const select = algorithmChoice(algorithm)
  const input = createElement("input", {type: "text", inputmode: "decimal", "aria-label": "New limit of the gradient", placeholder: "limit"})
  const row = createElement("form", {class: "rate clipping"},
    createElement("span", {}, "clipping"), createElement("output", {}, text), select, input, createElement("button", {}, "Set"))
  row.addEventListener("submit", (event) => {
    event.preventDefault()
    const value = readLimit(input)
    if (value == null) return
    sendCommand("set_gradient_clipping", {value, option: select.value})
    input.value = ""
  })
  return createElement("section", {}, createElement("h3", {}, "Gradients of all parameters"), row, createElement("p", {class: "note"}))
}

/**
 * Draw the clipping in force, and one that is requested until the training has replied. What was typed stays.
 * @param {HTMLElement} section that `clippingSection` returned
 * @param {Clipping} clipping
 * @param {string} refusal why no value can be set; empty if one can
 */
export function drawClipping(section, {text, requested, note, refusal: own}, refusal) {
  const output = /** @type {HTMLElement} */ (section.querySelector("output"))
  output.textContent = text
  output.dataset.requested = requested
  const line = /** @type {HTMLElement} */ (section.querySelector(".note"))
  line.textContent = note || own
  for (const element of section.querySelectorAll("input, select, button")) {
    const control = /** @type {HTMLInputElement | HTMLSelectElement | HTMLButtonElement} */ (element)
    control.disabled = refusal !== "" || own !== ""
    control.title = refusal || own
  }
}

/**
 * The field in the staging bar that changes at which number gradients will be clipped.
 * @param {StagedRow} row
 */
export function stagedClipping({key, clipping}) {
  if (clipping == null) return null
  const select = algorithmChoice(clipping.algorithm, `algorithm ${key}`)
  const input = createElement("input", {
    type: "text", inputmode: "decimal", autocomplete: "off", "aria-label": "Limit of the gradient", "data-key": `limit ${key}`, value: typed ?? clipping.value,
  })
  const send = () => {
    const value = readLimit(input)
    typed = null
    if (value != null) sendCommand("stage_clipping", {value, option: select.value})
  }
  input.addEventListener("input", () => { typed = input.value })
  // A field that was redrawn while somebody typed reports no change on Enter.
  input.addEventListener("keydown", ({key: pressed}) => {
    if (pressed === "Enter") send()
    else if (pressed === "Escape") typed = null
  })
  input.addEventListener("blur", () => {
    if (typed != null && !isRedrawing) send()
  })
  select.addEventListener("change", send)
  return createElement("span", {class: "limit"}, select, input)
}

/** What is being typed, which a redraw must not change. @type {string | null} */
let typed = null
let isRedrawing = false

/**
 * Draw the staging bar again. A field that is replaced while somebody types loses the focus, but sends nothing yet.
 * @param {() => void} draw
 */
export function redrawWhileTyping(draw) {
  isRedrawing = true
  draw()
  isRedrawing = false
}

/**
 * @param {string} algorithm
 * @param {string} [key]
 */
function algorithmChoice(algorithm, key) {
  const options = Object.entries(NOTES).map(([name, title]) => createElement("option", {value: name, title, selected: name === algorithm}, name))
  return createElement("select", {"aria-label": "How gradients are clipped", "data-key": key}, ...options)
}

/** @param {HTMLInputElement} input */
function readLimit(input) {
  const value = parseRate(input.value)
  input.setAttribute("aria-invalid", String(value == null))
  if (value == null) showNotice(NO_LIMIT)
  return value
}
