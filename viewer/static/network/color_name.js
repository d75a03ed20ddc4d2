/** What the colors of the nodes stand for, in the legend of the network view. */

import {byId} from "../shared/dom.js"
import {latest} from "../shared/link.js"

export function drawColorName() {
  const classes = latest("class_colors"), isPrice = latest("prices")?.shown ?? false
  const class_ = classes?.shown ? `answers to ${classes.classes[classes.chosen]}` : null
  byId("color-name").textContent = class_ ?? (isPrice ? "price" : "gradient")
}
