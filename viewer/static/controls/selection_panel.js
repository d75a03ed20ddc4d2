/** The selected layer and filter in words and numbers, and the buttons that edit them. */

import {buttonsWith, byId, onEnabledClick, markPressedButton, setButtonState} from "../shared/dom.js"
import {sendCommand, subscribe} from "../shared/link.js"
import {drawLongName} from "../shared/long_name.js"
import {drawFacts} from "./facts.js"

/** @import {SelectionPanelData} from "../shared/parts.js" */

export function startSelectionPanel() {
  subscribe("selection_panel", drawSelection)
  const commands = {add: "stage_add", split: "stage_split", remove: "toggle_staged_removal"}
  for (const [id, command] of Object.entries(commands)) onEnabledClick(byId(id), () => sendCommand(command))
  for (const button of buttonsWith("sort")) {
    button.addEventListener("click", () => sendCommand("set_filter_bar_statistic", {option: button.dataset.sort}))
  }
}

/** @param {SelectionPanelData} data */
function drawSelection(data) {
  drawLongName(byId("layer"), data.layer)
  byId("layer").title = `${data.layer} · ${data.facts}`
  byId("layer-facts").textContent = data.facts
  byId("layer-facts").title = data.statistics_note
  byId("filter").textContent = data.filter
  drawFacts(byId("filter-facts"), data.values, "value")
  for (const [id, reason] of Object.entries(data.disabled)) setButtonState(byId(id), reason, data.tooltips[id])
  markPressedButton("sort", data.sort)
}
