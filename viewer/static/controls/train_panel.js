/** The panel that has the run train a number of batches, or to the end of the epoch, and then pause. */

import {byId} from "../shared/dom.js"
import {subscribe} from "../shared/link.js"
import {controlRun} from "./run_controls.js"

const MARGIN = 6 // px between the panel and its button, and the edge of the window
const WIDTH = 236 // px

/** @returns {HTMLInputElement} */
const batches = () => byId("train-batches")

export function startTrainPanel() {
  const panel = byId("train-panel")
  panel.addEventListener("beforetoggle", () => place(panel))
  panel.addEventListener("toggle", () => {
    if (!panel.matches(":popover-open")) return
    batches().focus() // not by an attribute: a notebook's frame refuses that with an error
    batches().select()
  })
  panel.querySelector("form")?.addEventListener("submit", (event) => {
    event.preventDefault()
    train("step", {batches: batches().valueAsNumber})
  })
  byId("finish-epoch").addEventListener("click", () => train("finish_epoch"))
  subscribe("controls", ({available, refusal}) => {
    if ((!available || refusal !== "") && panel.matches(":popover-open")) panel.hidePopover()
  })
}

/** @param {HTMLElement} panel */
function place(panel) {
  const {right, bottom} = byId("train").getBoundingClientRect()
  panel.style.width = `${WIDTH}px`
  panel.style.left = `${Math.max(MARGIN, right - WIDTH)}px`
  panel.style.top = `${bottom + MARGIN}px`
}

/**
 * @param {string} action
 * @param {Record<string, number>} [args]
 */
function train(action, args) {
  controlRun(action, args)
  byId("train-panel").hidePopover()
}
