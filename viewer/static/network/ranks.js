/** How many ranks the values are means of, and a table of all ranks on demand. */

import {byId, createElement} from "../shared/dom.js"
import {sendCommand, subscribe} from "../shared/link.js"

/** @import {RanksData} from "../shared/parts.js" */

export function startRankStatistics() {
  const toggle = byId("compare-ranks")
  toggle.addEventListener("click", () => sendCommand("toggle_rank_statistics"))
  subscribe("ranks", (data) => {
    byId("ranks").hidden = !data.shown
    toggle.setAttribute("aria-pressed", String(data.open))
    byId("ranks-text").textContent = data.text
    drawTable(data)
  })
}

/** @param {RanksData} data */
function drawTable({head, rows}) {
  const table = byId("ranks-table")
  byId("ranks-box").hidden = rows.length === 0
  const titles = [...head, "what differs"].map((name) => createElement("th", {scope: "col"}, name))
  const body = rows.map(({cells: [rank, ...values], note}) => createElement("tr", {},
    createElement("th", {scope: "row"}, rank),
    ...values.map((value) => createElement("td", {}, value)),
    createElement("td", {class: "warn"}, note)))
  table.replaceChildren(
    createElement("thead", {}, createElement("tr", {}, ...titles)), createElement("tbody", {}, ...body))
}
