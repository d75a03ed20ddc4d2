/** The verdicts on all layers, a few of them until more are asked for: a click shows the filters, the buttons beside it stage the remedies. */

import {byId, createElement, onEnabledClick, redrawChildren, setButtonState} from "../shared/dom.js"
import {sendCommand, subscribe} from "../shared/link.js"
import {deferDrawWhilePressed} from "../shared/press.js"

/** @import {VerdictRow} from "../shared/parts.js" */

/** @type {VerdictRow[]} */
let rows = []
let problem = ""
let total = 0
let isOpen = false

const SHOWN = 6 // rows, until all are asked for

export function startVerdicts() {
  const draw = deferDrawWhilePressed(byId("verdicts"), () => {
    const list = byId("verdicts"), shown = isOpen ? rows : rows.slice(0, SHOWN)
    list.hidden = rows.length === 0 && !problem
    list.dataset.open = String(isOpen)
    const failure = problem ? [createElement("li", {class: "faint"}, problem)] : []
    redrawChildren(list, ...failure, ...shown.map(rowElement), ...moreElements(toggle))
  })
  subscribe("verdicts", (data) => {
    rows = data.rows
    problem = data.problem
    total = data.total
    draw()
  })
  function toggle() {
    isOpen = !isOpen
    draw()
  }
}

/**
 * Return the button that shows all verdicts, or the first ones again; none if these are all.
 * @param {() => void} onclick
 */
function moreElements(onclick) {
  if (total <= SHOWN) return []
  const text = isOpen ? "fewer" : `${total - SHOWN} more`, rest = isOpen ? total - rows.length : 0
  const button = createElement("button", {class: "tiny", "data-key": "more", "aria-expanded": String(isOpen), onclick}, text)
  const note = rest > 0 ? createElement("span", {class: "faint"}, `${rest} more are not listed`) : null
  return [createElement("li", {}, button, note)]
}

/** @param {VerdictRow} row */
function rowElement({kind, layer, text, note, ids, remedies, refusal}) {
  const key = `${kind} ${layer} ${ids}` // a layer may have several groups of twins
  const show = createElement("button", {
    class: "chip", "data-kind": kind, "data-key": key, title: note, onclick: () => sendCommand("select_verdict_filters", {layer, ids}),
  }, text)
  const buttons = remedies.map(({option, label, ids: own, note: title, value, refusal: ownRefusal}) => {
    const button = createElement("button", {class: "tiny", "data-key": `${key} ${option}`, "aria-label": `${label}: ${text}`}, label)
    setButtonState(button, refusal || ownRefusal, title)
    onEnabledClick(button, () => sendCommand("stage_remedy", {layer, ids: own, option, value}))
    return button
  })
  return createElement("li", {}, show, ...buttons)
}
