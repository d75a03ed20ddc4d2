/** The list of edits, newest first, with Undo and Redo; and the reply to the last request of this tab. */

import {byId, createElement, onEnabledClick, redrawChildren, setButtonState} from "../shared/dom.js"
import {latest, sendCommand, subscribe} from "../shared/link.js"
import {deferDrawWhilePressed} from "../shared/press.js"

/** @import {ChangesData, EditRecord, ReplyData} from "../shared/parts.js" */

const NO_CHANGES = "No changes yet. Select a filter and press Delete, or use − and + below the name of a layer."

export function startEditList() {
  subscribe("changes", drawEdits)
  subscribe("reply", deferDrawWhilePressed(byId("reply"), drawReply))
  for (const name of ["undo", "redo"]) onEnabledClick(byId(name), () => sendCommand(name))
}

/** @param {ChangesData} data */
function drawEdits({records, undo_disabled: undoDisabled, redo_disabled: redoDisabled}) {
  setButtonState(byId("undo"), undoDisabled, "Undo the last edit of the network (U)")
  setButtonState(byId("redo"), redoDisabled, "Redo the edit that was undone last (Y)")
  const items = records.map(recordElement)
  byId("records").replaceChildren(...items.length > 0 ? items : [createElement("li", {class: "none"}, NO_CHANGES)])
}

/** @param {EditRecord} record */
function recordElement({title, state, size_change: sizeChange, text, who, who_note: whoNote, time, moment, effect, effect_note: effectNote}) {
  return createElement("li", {"data-state": state, title: sizeChange || null},
    createElement("span", {},
      createElement("span", {class: "heading"}, createElement("span", {class: "title"}, title), time && createElement("time", {title: moment}, time)),
      createElement("small", {}, text),
      who && createElement("small", {class: "who", title: whoNote}, who),
      effect && createElement("small", {class: "effect", title: effectNote}, effect)))
}

function drawReply() {
  const box = byId("reply"), {title = "", state, outcome, text} = latest("reply") ?? /** @type {Partial<ReplyData>} */ ({})
  box.hidden = !title
  box.dataset.state = state ?? ""
  if (!title) return
  redrawChildren(box,
    createElement("span", {}, createElement("b", {}, title), " ", createElement("span", {class: "outcome"}, outcome)),
    createElement("small", {class: "text"}, text),
    createElement("button", {"aria-label": "Dismiss", onclick: () => sendCommand("dismiss_reply")}, "×"))
}
