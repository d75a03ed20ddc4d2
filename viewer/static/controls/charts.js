/** The choosers above the charts: which metric, which statistic of the layers. */

import {onChoice} from "../shared/choice.js"
import {createElement} from "../shared/dom.js"
import {sendCommand, subscribe} from "../shared/link.js"

/** @import {ChartsData} from "../shared/parts.js" */

/** @returns {NodeListOf<HTMLSelectElement>} */
const choosers = () => document.querySelectorAll("select[data-chart]")

export function startCharts() {
  subscribe("charts", drawChoices)
  for (const chooser of choosers()) {
    onChoice(chooser, (option) => sendCommand("set_chart", {chart: Number(chooser.dataset.chart), option}))
  }
}

/** @param {ChartsData} data */
function drawChoices({charts = []}) {
  for (const chooser of choosers()) {
    const chart = charts[Number(chooser.dataset.chart)]
    if (chart == null) continue
    const key = JSON.stringify(chart.options)
    if (chooser.dataset.key !== key) {
      chooser.dataset.key = key
      chooser.replaceChildren(...chart.options.map(([value, label]) => createElement("option", {value}, label)))
    }
    if (chooser !== document.activeElement || chooser.value === "") chooser.value = chart.current
  }
}
