/** The class of the chosen image, and what the network predicts: before and after the newest edit, and now. */

import {byId, createElement} from "../shared/dom.js"

/** @import {PredictionData, PredictionMoment} from "../shared/parts.js" */

/** @param {PredictionData | undefined} data */
export function drawPrediction(data) {
  const box = byId("prediction"), {note = "", truth = "", moments = []} = data ?? {}
  box.hidden = note === "" && moments.length === 0
  if (note !== "") {
    box.replaceChildren(createElement("span", {class: "faint"}, note))
    return
  }
  const parts = moments.map(momentElement)
  box.replaceChildren(...truth === "" ? [] : [cell("truth", createElement("b", {}, truth))], ...parts)
}

/** @param {PredictionMoment} moment */
function momentElement({label, name, probability, truth_probability: truthProbability, correct, details}) {
  const mark = correct == null ? "" : correct ? " ✓" : " ✗"
  const element = cell(label,
    createElement("b", {}, name, mark && createElement("span", {role: "img", "aria-label": correct ? "correct" : "wrong"}, mark)),
    createElement("small", {}, formatPercent(probability)))
  if (correct === false && truthProbability != null) element.append(createElement("small", {}, `truth ${formatPercent(truthProbability)}`))
  if (correct != null) element.dataset.correct = String(correct)
  element.title = details
  return element
}

/**
 * @param {string} label
 * @param {...Node} content
 */
function cell(label, ...content) {
  return createElement("div", {class: "moment"}, createElement("span", {class: "faint"}, label), ...content)
}

/** @param {number} share */
export function formatPercent(share) {
  const digits = share > 0.999 || share < 0.1 ? 1 : 0
  return `${(100 * share).toFixed(digits)}\u202f%`
}
