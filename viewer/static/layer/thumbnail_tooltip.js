/** The tooltip of a thumbnail: the enlarged image and the filter's numbers. */

import {createElement} from "../shared/dom.js"
import {formatNumber} from "../shared/format.js"
import {hoveredNumbers} from "../shared/hovered_filter.js"
import {DEAD_NOTE, SILENT_IMAGE_NOTE, SILENT_NOTE} from "../shared/silence.js"
import {describeDegenerate} from "./degenerate.js"
import {filterSelection} from "./filter_selection.js"
import {context2d, tileBox} from "./tile_atlas.js"

/** @import {ThumbnailView} from "./thumbnail_view.js" */

const WIDTH = 168 // px

/**
 * @param {ThumbnailView} view
 * @param {number} i
 */
export function describeFilter(view, i) {
  const id = view.ids[i]
  const {gradient, activation} = newestNumbers(view, i)
  const silence = silenceNote(view, i, activation)
  const notes = [
    silence,
    silence && view.name === "activations" ? "" : describeDegenerate(view.degenerateKind(i), view.name),
    filterSelection.frozen.has(id) ? "frozen" : "",
    filterSelection.staged.has(id) ? "staged for removal" : "",
    view.name === "coefficients"
      ? "click to select · drag among others to set it to their mean"
      : "click to select · shift-click to select several",
  ]
  return [
    createElement("b", {}, `${view.data.layer} · filter ${view.data.indices?.[i]}`),
    ...enlargedImage(view, i),
    statisticLine("mean |∇|", gradient, "gradient"),
    statisticLine(view.data.of_image ? "Σ activation, this image" : "Σ activation", activation, "activation"),
    ...notes.filter(Boolean).map((note) => createElement("small", {}, note)),
  ]
}

/**
 * Return the numbers of the newest batch, or those that the view has; of a chosen image, its own activation.
 * @param {ThumbnailView} view
 * @param {number} i
 */
function newestNumbers(view, i) {
  const newest = hoveredNumbers(view.data.layer_index ?? -1, view.data.indices?.[i] ?? -1)
  return {
    gradient: newest == null ? view.gradient(i) : newest.gradient,
    activation: newest == null || view.data.of_image ? view.activation(i) : newest.activation,
  }
}

/**
 * @param {ThumbnailView} view
 * @param {number} i
 * @param {number | null | undefined} activation
 */
function silenceNote(view, i, activation) {
  if (filterSelection.dead.has(view.ids[i])) return DEAD_NOTE
  if (activation !== 0) return ""
  return view.data.of_image ? SILENT_IMAGE_NOTE : SILENT_NOTE
}

/**
 * Return a line of a tooltip: a statistic's name and value.
 * @param {string} label
 * @param {number | null | undefined} value
 * @param {string} statistic that gives the line its color
 */
export function statisticLine(label, value, statistic) {
  return createElement("div", {"data-statistic": statistic}, label, createElement("span", {}, formatNumber(value)))
}

/**
 * @param {ThumbnailView} view
 * @param {number} i
 */
function enlargedImage(view, i) {
  const {tiles} = view
  if (tiles == null) return []
  const height = Math.round(WIDTH * tiles.height / tiles.width)
  const canvas = createElement("canvas", {class: "enlarged", width: WIDTH, height}), context = context2d(canvas)
  context.imageSmoothingEnabled = view.isSmooth
  context.drawImage(tiles.canvas, ...tileBox(tiles, i), 0, 0, WIDTH, height)
  return [canvas]
}
