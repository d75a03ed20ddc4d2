/** Coloring the nodes by how much they answer to a class. */

import {onChoice} from "../shared/choice.js"
import {byId, createElement} from "../shared/dom.js"
import {latest, sendCommand, subscribe} from "../shared/link.js"
import {drawColorLegend} from "./color_name.js"

export function startClassColors() {
  const toggle = byId("class-colors"), choice = /** @type {HTMLSelectElement} */ (byId("class-choice"))
  toggle.addEventListener("click", () => sendCommand("color_nodes_by_class_response", {first: latest("class_colors")?.shown ? -1 : Number(choice.value || 0)}))
  onChoice(choice, (value) => sendCommand("color_nodes_by_class_response", {first: Number(value)}))
  subscribe("class_colors", ({shown, chosen, classes, text}) => {
    toggle.setAttribute("aria-pressed", String(shown))
    byId("of-class").hidden = !shown
    byId("class-note").textContent = text
    drawColorLegend()
    if (!shown) return
    if ([...choice.options].some((option, i) => option.text !== classes[i]) || choice.options.length !== classes.length) {
      choice.replaceChildren(...classes.map((name, index) => createElement("option", {value: String(index)}, name)))
    }
    choice.value = String(chosen)
  })
}
