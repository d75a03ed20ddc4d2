/** The buttons that control the run: pause, train one batch or more, save a checkpoint, record, stop. */

import {announce, byId, createSvg, setButtonState} from "../shared/dom.js"
import {latest, sendCommand, subscribe} from "../shared/link.js"
import {showNotice} from "../shared/notice.js"
import {drawLearningRates, startLearningRates} from "./learning_rates.js"

/** @import {ControlsData} from "../shared/parts.js" */

const CONFIRM_MS = 3000 // within which Stop must be pressed a second time

// The learning rates may be read by everybody.
const STEERING = ["train", "checkpoint", "stop"]
const NOT_PAUSED = "Pause the run before you train single batches (Space)"
const NO_RUN = "There is no run to control"

/** @type {Record<string, {title: string, path: string}>} */
const BUTTONS = {
  pause: {title: "Pause before the next batch (Space)", path: "M4 3h3v10H4zM9 3h3v10H9z"},
  resume: {title: "Resume (Space)", path: "M4 2.5 13 8 4 13.5z"},
  step: {title: "Train one batch (.)", path: "M3 3v10l7-5zM11 3h2v10h-2z"},
  train: {title: "Train several batches, or to the end of the epoch, then pause (N)", path: "M1.5 3v10l5-5zM6.5 3v10l5-5zM12.5 3h2v10h-2z"},
  checkpoint: {title: "Save a checkpoint now (C)", path: "M8 2v7M4.5 6.5 8 10l3.5-3.5M3 13h10"},
  record: {title: "Record every batch to a file, where the training runs (Shift+R)", path: "M8 3.5a4.5 4.5 0 1 1 0 9 4.5 4.5 0 0 1 0-9z"},
  rates: {title: "Learning rates, weight decay and gradient clipping (W)", path: "M3 5h6M12 5h1M3 11h1M7 11h6M10.5 3.5v3M5.5 9.5v3"},
  stop: {title: "Save a checkpoint and stop the training (Shift+X)", path: "M4 4h8v8H4z"},
}

export function startRunControls() {
  for (const name of ["pause", "step", "train", "checkpoint", "record", "rates", "stop"]) drawButton(name, name)
  byId("pause").addEventListener("click", togglePause)
  byId("step").addEventListener("click", () => controlRun("step"))
  byId("checkpoint").addEventListener("click", () => controlRun("checkpoint"))
  byId("record").addEventListener("click", () => controlRun(latest("controls")?.recording ? "stop_recording" : "record"))
  byId("stop").addEventListener("click", stop)
  startLearningRates()
  subscribe("controls", drawControls)
}

/**
 * @param {string} action
 * @param {Record<string, number>} [args]
 */
export function controlRun(action, args = {}) {
  if (latest("controls")?.available) sendCommand("control_run", {action, ...args})
  else showNotice(NO_RUN)
}

/**
 * Click a button of the run, for the keyboard.
 * @param {string} id
 */
export function clickRunControl(id) {
  if (latest("controls")?.available) byId(id).click()
  else showNotice(NO_RUN)
}

export function togglePause() {
  controlRun(latest("controls")?.paused ? "resume" : "pause")
}

/** @param {ControlsData} data */
function drawControls({available, paused, refusal, recording, groups, clipping}) {
  byId("controls").hidden = !available
  if (!available) byId("rates-panel").hidden = true
  drawButton("pause", paused ? "resume" : "pause", refusal)
  for (const name of STEERING) drawButton(name, name, refusal)
  drawButton("step", "step", refusal || (paused ? "" : NOT_PAUSED))
  byId("pause").dataset.paused = String(paused)
  drawLearningRates(groups, clipping, refusal)
  drawRecording(recording, refusal)
}

/**
 * @param {string} file that is being recorded; "" if none is
 * @param {string} refusal why it cannot be started or ended; "" if it can
 */
function drawRecording(file, refusal) {
  const button = byId("record")
  button.setAttribute("aria-pressed", String(file !== ""))
  setButtonState(button, refusal, file ? `Recording to ${file}. Press to end the recording (Shift+R).` : BUTTONS.record.title)
}

/**
 * @param {string} id of the button
 * @param {string} name of its present meaning
 * @param {string} [refusal] why it is disabled
 */
function drawButton(id, name, refusal = "") {
  const button = byId(id), {title, path} = BUTTONS[name]
  setButtonState(button, refusal, title)
  if (button.dataset.icon === name) return
  button.dataset.icon = name
  button.setAttribute("aria-label", title)
  button.replaceChildren(createSvg("svg", {viewBox: "0 0 16 16", "aria-hidden": "true"}, createSvg("path", {d: path})))
}

/** @type {ReturnType<typeof setTimeout> | undefined} */
let confirmation

/** The first press asks for confirmation, the second one stops the run. */
function stop() {
  const button = byId("stop"), isConfirmed = button.dataset.confirming === "true"
  clearTimeout(confirmation) // of an earlier press: it would end this one too early
  button.dataset.confirming = String(!isConfirmed)
  if (isConfirmed) {
    controlRun("stop")
    return
  }
  announce("Press again to save a checkpoint and stop the training")
  confirmation = setTimeout(() => { button.dataset.confirming = "false" }, CONFIRM_MS)
}
