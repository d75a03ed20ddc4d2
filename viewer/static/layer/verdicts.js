/** The verdicts on all layers: a click shows the filters, the buttons beside it stage the remedies. */

import {byId, createElement, onEnabledClick, redrawChildren, setButtonState} from "../shared/dom.js"
import {sendCommand, subscribe} from "../shared/link.js"
import {drawUnlessPressed} from "../shared/press.js"

/** @import {VerdictRow} from "../shared/parts.js" */

/** @type {VerdictRow[]} */
let rows = []
let problem = ""

export function startVerdicts() {
  const draw = drawUnlessPressed(byId("verdicts"), () => {
    byId("verdicts").hidden = rows.length === 0 && !problem
    const failure = problem ? [createElement("li", {class: "faint"}, problem)] : []
    redrawChildren(byId("verdicts"), ...failure, ...rows.map(rowElement))
  })
  subscribe("verdicts", (data) => {
    rows = data.rows
    problem = data.problem
    draw()
  })
}

/** @param {VerdictRow} row */
function rowElement({kind, layer, text, note, ids, remedies, refusal}) {
  const key = `${kind} ${layer} ${ids}` // a layer may have several groups of twins
  const show = createElement("button", {
    class: "chip", "data-kind": kind, "data-key": key, title: note, onclick: () => sendCommand("show_verdict", {layer, ids}),
  }, text)
  const buttons = remedies.map(({option, label, ids: own, note: title}) => {
    const button = createElement("button", {class: "tiny", "data-key": `${key} ${option}`, "aria-label": `${label}: ${text}`}, label)
    setButtonState(button, refusal, title)
    onEnabledClick(button, () => sendCommand("stage_remedy", {layer, ids: own, option}))
    return button
  })
  return createElement("li", {}, show, ...buttons)
}
