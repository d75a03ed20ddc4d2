/** The timeline: going back to earlier batches of the run. */

import {byId} from "../shared/dom.js"
import {latest, sendCommand, subscribe} from "../shared/link.js"
import {showNotice} from "../shared/notice.js"
import {editTickBackground} from "./edit_ticks.js"

/** @import {TimelineData} from "../shared/parts.js" */

/** @returns {HTMLInputElement} */
const slider = () => byId("time")

export function startTimeline() {
  subscribe("timeline", drawTimeline)
  byId("play").addEventListener("click", () => sendCommand("toggle_playback"))
  byId("live").addEventListener("click", () => sendCommand("go_live"))
  slider().addEventListener("input", () => {
    const data = latest("timeline")
    if (data == null || data.rows < 2) return
    sendCommand("show_moment", {row: Math.round(Number(slider().value) / (data.rows - 1) * (data.recorded - 1))})
  })
}

/**
 * Show a moment so many rows before or after the present one.
 * @param {number} rows
 */
export function stepMoment(rows) {
  const {recorded = 0, live = true, row = 0} = latest("timeline") ?? {}
  const moment = (live ? recorded - 1 : row) + rows
  if (recorded > 1 && moment >= 0 && !(live && rows > 0)) sendCommand("show_moment", {row: moment})
  else showNotice(recorded < 2 ? "No earlier batch is recorded yet" : rows < 0 ? "This is the first recorded batch" : "This is the newest batch")
}

/** @param {TimelineData} data */
function drawTimeline(data) {
  byId("timeline").hidden = data.rows < 2
  byId("app").dataset.past = String(data.rows > 1 && !data.live)
  if (data.rows < 2) return
  const input = slider(), max = data.rows - 1
  byId("timeline").dataset.live = String(data.live)
  input.max = String(max)
  if (!input.matches(":active")) input.value = String(data.row) // the user may be dragging it
  input.style.setProperty("--part", `${100 * Number(input.value) / max}%`)
  input.setAttribute("aria-valuetext", data.text)
  input.title = data.recording_note
  input.style.background = editTickBackground(data.edits)
  byId("moment").textContent = data.notice || data.text
  const play = byId("play")
  play.dataset.playing = String(data.playing)
  play.title = data.playing ? "Stop playing (P)" : `Play the run from ${data.live ? "its beginning" : "the shown batch"} (P)`
  play.setAttribute("aria-label", play.title)
}
