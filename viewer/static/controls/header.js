/** The header: which run the page shows, what it is doing, and the notice of its end. */

import {onChoice} from "../shared/choice.js"
import {byId, createElement, elements, setButtonState} from "../shared/dom.js"
import {sendCommand, subscribe} from "../shared/link.js"
import {drawFacts} from "./facts.js"

/** @import {HeaderData, RunChoice} from "../shared/parts.js" */

export function startHeader() {
  subscribe("header", drawHeader)
  onChoice(byId("runs"), (run) => sendCommand("show_run", {run}))
  const dismiss = /** @type {HTMLElement} */ (byId("alert").querySelector(".dismiss"))
  dismiss.addEventListener("click", () => sendCommand("dismiss_alerts"))
}

/** @param {HeaderData} data */
function drawHeader(data) {
  byId("app").dataset.run = data.run
  byId("app").dataset.steering = String(data.can_steer)
  byId("editing-hint").hidden = !data.can_steer
  drawLost(Boolean(data.server_problem), data.unreachable)
  byId("dot").dataset.kind = data.kind
  byId("model").textContent = data.name
  byId("model").title = data.model
  byId("model").hidden = data.runs.length > 1
  byId("run-state").textContent = data.status
  byId("run-state").title = [data.status, data.access.note].filter(Boolean).join("\n")
  byId("access").hidden = data.access.label === ""
  byId("access").textContent = data.access.label
  byId("access").title = data.access.note
  byId("run-state").dataset.kind = data.kind
  byId("empty").hidden = data.run !== "none"
  byId("problem").textContent = data.problem
  byId("network-notice").hidden = data.network_notice === ""
  byId("network-notice").textContent = data.network_notice
  for (const button of elements("[data-needs-layers], button[data-pane], button[data-save]")) {
    setButtonState(button, data.watch_refusal, button.dataset.hint ??= button.title)
  }
  drawFacts(byId("fields"), data.fields, "field")
  drawRuns(data.runs)
  drawEndNotice(data)
  drawAlert(data)
}

/** @param {HeaderData} data */
function drawAlert({alert, alerts}) {
  const bar = byId("alert"), text = /** @type {HTMLElement} */ (bar.querySelector(".what"))
  bar.hidden = alert === ""
  bar.title = alerts
  if (text.textContent !== alert) text.textContent = alert // a screen reader reads each change
}

/**
 * Nothing that nobody receives looks as if it could be pressed.
 * @param {boolean} isLost whether the server does not respond
 * @param {boolean} isUnreachable whether the training does not respond to the server
 */
function drawLost(isLost, isUnreachable) {
  byId("app").dataset.lost = String(isLost)
  byId("app").dataset.unreachable = String(isUnreachable)
  byId("controls").inert = isLost
  byId("staging").inert = isLost
}

/** @param {HeaderData} data */
function drawEndNotice({server_problem: problem = "", kind, end_notice: notice, next_run: next}) {
  const bar = byId("ended")
  bar.hidden = problem === "" && notice === ""
  bar.dataset.kind = kind
  const text = /** @type {HTMLElement} */ (bar.querySelector(".what"))
  text.textContent = problem || notice
  const button = /** @type {HTMLButtonElement} */ (bar.querySelector(".next"))
  button.hidden = next == null || problem !== ""
  if (next == null) return
  button.textContent = `Show ${next.label}`
  button.onclick = () => sendCommand("show_run", {run: next.id})
}

/** @param {RunChoice[]} runs */
function drawRuns(runs) {
  const chooser = byId("runs"), key = JSON.stringify(runs)
  chooser.hidden = runs.length < 2
  if (chooser.dataset.key === key) return // replacing the options would close an open list
  chooser.dataset.key = key
  chooser.replaceChildren(...runs.map(({id, label, current}) => createElement("option", {value: id, selected: current}, label)))
}
