/** What the run does by itself: pruning to a budget, and the policy. */

import {onChoice} from "../shared/choice.js"
import {byId, onEnabledClick, setButtonState} from "../shared/dom.js"
import {latest, sendCommand, subscribe} from "../shared/link.js"

/** @import {AutomaticData} from "../shared/parts.js" */

const POLICY = "What the run does with its own verdicts, also when this page is closed"
const LIMITS = {share: 99, count: 64, every: 1_000_000}

export function startAutomaticEdits() {
  byId("pruning").addEventListener("submit", (event) => {
    event.preventDefault()
    if (!latest("automatic")?.refusal && !isBusy()) sendCommand("prune_to", budget())
  })
  const start = byId("pruning-start"), pause = byId("pruning-pause")
  onEnabledClick(pause, () => control(latest("automatic")?.stage === "paused" ? "resume" : "pause"))
  onEnabledClick(byId("pruning-end"), () => control("end"))
  onEnabledClick(byId("pruning-undo"), () => control("undo"))
  const policy = /** @type {HTMLSelectElement} */ (byId("policy"))
  onChoice(policy, (option) => sendCommand("set_verdict_policy", {option}))
  subscribe("automatic", (data) => {
    byId("automatic").hidden = !data.shown
    byId("pruning").hidden = isBusy()
    byId("pruning-text").textContent = data.text
    drawButtons(data, start, pause)
    const progress = /** @type {HTMLProgressElement} */ (byId("pruning-progress"))
    progress.hidden = data.stage === "none"
    progress.value = data.progress
    if (document.activeElement !== policy) policy.value = data.policy
    policy.disabled = data.refusal !== ""
    policy.title = data.refusal || POLICY
    byId("policy-note").textContent = data.proposals ? `${data.proposals} proposed` : ""
  })
}

/**
 * @param {AutomaticData} data
 * @param {HTMLElement} start
 * @param {HTMLElement} pause
 */
function drawButtons({stage, revocable, refusal}, start, pause) {
  setButtonState(start, refusal, "Remove the cheapest filters every few batches until the network is so small, also when this page is closed")
  pause.textContent = stage === "paused" ? "Continue" : "Pause"
  setButtonState(pause, refusal, stage === "paused" ? "Continue the pruning" : "Remove nothing more for now")
  setButtonState(byId("pruning-end"), refusal, "End the pruning; what was removed stays removed")
  setButtonState(byId("pruning-undo"), refusal, "End the pruning and bring back what it has removed, at most 32 edits")
  for (const id of ["pruning-pause", "pruning-end"]) byId(id).hidden = !isBusy()
  byId("pruning-undo").hidden = !revocable
}

function isBusy() {
  const stage = latest("automatic")?.stage
  return stage === "running" || stage === "paused"
}

/** @param {string} action */
function control(action) {
  sendCommand("control_pruning", {action})
}

function budget() {
  const measure = /** @type {HTMLSelectElement} */ (byId("pruning-measure"))
  return {
    value: numberIn("pruning-share", LIMITS.share) / 100,
    option: measure.value,
    count: numberIn("pruning-count", LIMITS.count),
    batches: numberIn("pruning-every", LIMITS.every),
  }
}

/**
 * @param {string} id of an input
 * @param {number} most
 */
function numberIn(id, most) {
  const number = Math.trunc(Number(/** @type {HTMLInputElement} */ (byId(id)).value))
  return Math.min(most, Math.max(1, number || 1))
}
