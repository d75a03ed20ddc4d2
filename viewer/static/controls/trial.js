/** The trial of edits that is under way: its progress, then its result and the decision. */

import {announce, byId, createElement, createSvg, onEnabledClick, redrawChildren, setButtonState} from "../shared/dom.js"
import {latest, sendCommand, subscribe} from "../shared/link.js"
import {deferDrawWhilePressed} from "../shared/press.js"

/** @import {TrialData} from "../shared/parts.js" */

const WIDTH = 96, HEIGHT = 30

let announced = "", dismissed = ""

export function startTrial() {
  subscribe("trial", deferDrawWhilePressed(byId("trial"), drawTrial))
}

function drawTrial() {
  const data = latest("trial")
  if (data == null) return
  const box = byId("trial"), isShown = data.stage !== "none" && data.id !== dismissed
  box.hidden = !isShown
  box.dataset.stage = data.stage
  if (!isShown) return box.replaceChildren()
  redrawChildren(box,
    createElement("span", {class: "what"}, "Trial: ", createElement("b", {class: "title"}, data.title),
      createElement("small", {class: "detail"}, data.text)),
    data.stage === "undecided" ? lossCurves(data) : isOver(data) ? "" : progressBar(data),
    ...buttons(data))
  if (isOver(data) && announced !== data.id) {
    announced = data.id
    announce(data.text)
  }
}

/** @param {TrialData} data */
function isOver({stage}) {
  return stage === "undecided" || stage === "failed"
}

/** @param {TrialData} data */
function progressBar({progress}) {
  return createElement("progress", {max: 1, value: progress, "aria-label": "Progress of the trial"})
}

/** @param {TrialData} data */
function buttons({stage, id, refusal}) {
  if (stage === "failed") return [button("dismiss", "Dismiss", "", "Close this message", () => { dismissed = id; drawTrial() })]
  const discard = button("discard", stage === "undecided" ? "Discard" : "Cancel", refusal,
    stage === "undecided" ? "Go on with the unedited network, as if there had been no trial" : "End the trial without a result", () => sendCommand("discard_trial"))
  if (stage !== "undecided") return [discard]
  return [button("keep", "Keep", refusal, "Go on with the edited network as it is after these batches", () => sendCommand("keep_trial")), discard]
}

/**
 * @param {string} name
 * @param {string} text
 * @param {string} refusal
 * @param {string} title
 * @param {() => void} onclick
 */
function button(name, text, refusal, title, onclick) {
  const element = createElement("button", {class: name, "data-key": name}, text)
  setButtonState(element, refusal, title)
  onEnabledClick(element, onclick)
  return element
}

/**
 * Draw the losses of both networks over the batches of the trial.
 * @param {TrialData} data
 */
function lossCurves({losses, edited_losses: edited}) {
  const finite = [...losses, ...edited].filter(Number.isFinite)
  const low = Math.min(...finite), range = Math.max(...finite) - low || 1
  /** @param {number[]} values */
  const points = (values) => values.map((value, i) =>
    `${(i * WIDTH / Math.max(1, values.length - 1)).toFixed(1)},${(HEIGHT - 1 - (value - low) / range * (HEIGHT - 2)).toFixed(1)}`).join(" ")
  return createElement("span", {class: "losses", title: "The loss of each batch: unedited in gray, edited in blue"},
    createSvg("svg", {width: WIDTH, height: HEIGHT, viewBox: `0 0 ${WIDTH} ${HEIGHT}`, role: "img", "aria-label": "The loss of each batch, unedited and edited"},
      createSvg("polyline", {class: "unedited", points: points(losses)}),
      createSvg("polyline", {class: "edited", points: points(edited)})))
}
