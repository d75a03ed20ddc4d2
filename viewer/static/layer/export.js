/** Saving what a view shows: as an image, a drawing or a table. */

import {buttonsWith, createElement} from "../shared/dom.js"
import {showNotice} from "../shared/notice.js"
import {saveFile} from "../shared/save_file.js"
import {describeDegenerate} from "./degenerate.js"
import {filterTable} from "./filter_table.js"
import {svgDrawing} from "./svg_export.js"
import {context2d} from "./tile_atlas.js"

/** @import {ThumbnailView} from "./thumbnail_view.js" */

const NOTHING = "There is nothing to save yet: the view shows no image"
const RESOLUTION = 2 // of an image, relative to the screen's

/** @param {Partial<Record<string, ThumbnailView>>} views by the name in `data-view` */
export function startViewExport(views) {
  for (const button of buttonsWith("save")) {
    button.addEventListener("click", () => {
      const name = /** @type {HTMLElement | null} */ (button.closest("[data-view]"))?.dataset.view
      const view = views[name ?? ""]
      if (view != null && view.count > 0) saveView(view, button.dataset.save ?? "")
      else showNotice(NOTHING)
    })
  }
}

/**
 * @param {ThumbnailView} view
 * @param {string} format "png", "svg" or "csv"
 */
function saveView(view, format) {
  if (format === "png") savePng(view)
  else if (format === "svg") saveFile(new Blob([svgDrawing(view)], {type: "image/svg+xml"}), fileName(view, "svg"))
  else saveFile(new Blob([filterTable(tableRows(view))], {type: "text/csv"}), fileName(view, "csv"))
}

/**
 * @param {ThumbnailView} view
 * @param {string} extension
 */
function fileName({data, name}, extension) {
  return `${data.layer}-${name}-step${data.step}.${extension}`
}

/** @param {ThumbnailView} view */
function savePng(view) {
  const ratio = RESOLUTION * devicePixelRatio, [width, height] = view.size.map((length) => Math.round(length * ratio))
  const sheet = createElement("canvas", {width, height}), context = context2d(sheet)
  view.paint(context, ratio)
  context.setTransform(1, 0, 0, 1, 0, 0)
  context.globalCompositeOperation = "destination-over"
  context.fillStyle = getComputedStyle(document.documentElement).getPropertyValue("--card")
  context.fillRect(0, 0, width, height)
  sheet.toBlob((blob) => blob != null && saveFile(blob, fileName(view, "png")))
}

/** @param {ThumbnailView} view */
function tableRows(view) {
  const {indices = [], positions = []} = view.data
  return view.ids.map((id, i) => ({
    index: indices[i],
    id,
    x: positions[2 * i],
    y: positions[2 * i + 1],
    degenerate: describeDegenerate(view.degenerateKind(i), view.name),
    gradient: view.gradient(i),
    activation: view.activation(i),
  }))
}
