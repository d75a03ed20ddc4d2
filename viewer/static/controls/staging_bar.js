/** The bar of staged changes. */

import {byId, createElement, onEnabledClick, redrawChildren, setButtonState} from "../shared/dom.js"
import {joinFacts} from "../shared/format.js"
import {latest, sendCommand, subscribe} from "../shared/link.js"
import {deferDrawWhilePressed} from "../shared/press.js"
import {redrawWhileTyping, stagedClipping} from "./clipping.js"

/** @import {StagedRow, StagingData} from "../shared/parts.js" */

export function startStagingBar() {
  subscribe("staging", deferDrawWhilePressed(byId("staging"), drawStaging))
}

function drawStaging() {
  const data = latest("staging")
  if (data == null) return
  const bar = byId("staging"), isSingle = data.rows.length === 1
  bar.hidden = data.rows.length === 0
  const rows = data.rows.map((row) => isSingle ? rowElement(row, ` ${data.when}`, actions(data)) : shortRowElement(row))
  if (data.rows.length > 1) {
    rows.push(createElement("div", {class: "row foot"},
      createElement("span", {class: "what"}, data.summary, data.total && createElement("small", {class: "detail"}, data.total)), ...actions(data)))
  }
  redrawWhileTyping(() => redrawChildren(bar, ...rows))
}

/**
 * @param {StagedRow} row
 * @param {string} when
 * @param {HTMLElement[]} buttons
 */
function rowElement(row, when, buttons) {
  const {verb, title, plan, detail, coupling, refused} = row, text = whyNot(row) || detail
  return createElement("div", {class: refused ? "row refused" : "row", "data-plan": plan},
    createElement("span", {class: "what"}, `${verb} `, createElement("b", {class: "title"}, title), when,
      text && createElement("small", {class: "detail"}, text),
      coupling && createElement("small", {class: "coupling"}, coupling),
      row.confirmation && confirmBox(row)),
    stagedClipping(row),
    ...buttons)
}

/**
 * A change among several, in a line if it fits. The rest is said on hover.
 * @param {StagedRow} row
 */
function shortRowElement(row) {
  const {verb, title, plan, detail, short, coupling, refused} = row, text = whyNot(row) || short
  return createElement("div", {class: refused ? "row refused" : "row", "data-plan": plan},
    createElement("span", {class: "what", title: joinFacts([detail, coupling]) || null}, `${verb} `,
      createElement("b", {class: "title"}, title),
      text && createElement("small", {class: "detail"}, text),
      row.confirmation && confirmBox(row)),
    stagedClipping(row),
    discardButton(row))
}

/** @param {StagedRow} row */
function whyNot({refused}) {
  return refused && `Not possible: ${refused}`
}

/** @param {StagedRow} row */
function confirmBox({key, confirmation, confirmed}) {
  return createElement("label", {class: "confirm"},
    createElement("input", {type: "checkbox", "data-key": `confirm ${key}`, checked: confirmed, onchange: () => sendCommand("toggle_confirmed", {key})}),
    ` Apply although ${confirmation}`)
}

/** @param {StagedRow} row */
function discardButton({key, title}) {
  return createElement("button", {
    class: "drop", "data-key": `discard ${key}`, title: "Discard this change", "aria-label": `Discard the change of ${title}`,
    onclick: () => sendCommand("discard_staged", {key}),
  }, "×")
}

/** @param {StagingData} data */
function actions(data) {
  const {can_apply: canApply, apply_hint: hint = "", busy} = data
  return [
    ...data.rows.every(({clipping}) => clipping != null) ? [] : trial(data),
    sendButton("apply", busy ? "Applying…" : "Apply", canApply ? "" : hint, hint, "apply_staged"),
    createElement("button", {class: "discard", "data-key": "discard", title: "Discard all staged changes (Esc)", onclick: () => sendCommand("discard_staged")},
      "Discard"),
  ]
}

/**
 * The field and the button that try the changes before they are applied.
 * @param {StagingData} data
 */
function trial({can_try: canTry, try_hint: hint = "", try_cost: cost, try_short_cost: shortCost, try_batches: batches}) {
  const title = cost ? `${hint}: ${cost}` : hint
  return [
    createElement("label", {class: "batches", title: cost || "How many batches a trial trains"},
      createElement("input", {inputmode: "numeric", autocomplete: "off", value: typed ?? batches, "data-key": "batches", "aria-label": "Batches of a trial", oninput: keepTyped, onchange: sendTyped, onkeydown: stepTyped}),
      "batches",
      createElement("small", {}, shortCost ?? "")),
    sendButton("try", "Try", canTry ? "" : hint, title, "try_staged"),
  ]
}

/**
 * A button that keeps the focus while it is disabled.
 * @param {string} name
 * @param {string} text
 * @param {string} reason empty where the button is enabled
 * @param {string} title of the enabled button
 * @param {string} command
 */
function sendButton(name, text, reason, title, command) {
  const button = createElement("button", {class: name, "data-key": name}, text)
  setButtonState(button, reason, title)
  onEnabledClick(button, () => sendCommand(command))
  return button
}

/** What is being typed, which a redraw must not change. @type {string | null} */
let typed = null

/** @param {{target: HTMLInputElement}} event */
function keepTyped({target}) {
  typed = target.value
}

/**
 * The arrow keys count up and down, as in a field for numbers, whose selected text a redraw could not keep.
 * @param {KeyboardEvent & {target: HTMLInputElement}} event
 */
function stepTyped(event) {
  const step = event.key === "ArrowUp" ? 1 : event.key === "ArrowDown" ? -1 : 0
  if (step === 0) return
  event.preventDefault()
  typed = event.target.value = String(Number(event.target.value) + step)
  sendTyped()
}

/** Send what was typed. A field that is redrawn may report its change once more. */
function sendTyped() {
  if (typed == null) return
  const batches = Math.min(200, Math.max(2, Math.trunc(Number(typed)) || 2))
  typed = null
  sendCommand("set_trial_batches", {batches})
}
