/** What the colors of the nodes stand for, in the legend of the network view. */

import {byId} from "../shared/dom.js"
import {formatNumber} from "../shared/format.js"
import {latest} from "../shared/link.js"

export function drawColorLegend() {
  byId("color-name").textContent = latest("class_colors")?.shown ? "class" : colorMeaning() // which class is said below
}

/** What the colors of the nodes stand for. */
export function colorMeaning() {
  const classes = latest("class_colors")
  if (classes?.shown) return `answers to ${classes.classes[classes.chosen]}`
  return latest("prices")?.shown ? "price" : "gradient"
}

/**
 * Return the value that a node has its color for, as a label and a text; null while it is the gradient.
 * @param {number | undefined} value NaN: unknown
 * @returns {[label: string, text: string] | null}
 */
export function describeColorValue(value) {
  if (value == null) return null
  const known = Number.isFinite(value) ? signed(value) : "not known yet"
  if (!latest("class_colors")?.shown) return ["color: loss if removed", known]
  return [colorMeaning(), Number.isFinite(value) ? `${known} σ` : known]
}

/** @param {number} value */
const signed = (value) => `${value > 0 ? "+" : ""}${formatNumber(value)}`.replace("-", "−")
