/** The image whose activation maps are shown, and the buttons that choose it. */

import {buttonsWith, byId} from "../shared/dom.js"
import {sendCommand, subscribe} from "../shared/link.js"
import {drawPrediction} from "./prediction.js"
import {context2d, paintAtlas} from "./tile_atlas.js"

/** @import {InputImageData, WireArray} from "../shared/parts.js" */

export const IMAGE_PENDING = "loading the next image"
const SMALL = 100 // px; smaller images show their pixels

export function startInputImage() {
  subscribe("input", drawInputImage)
  for (const button of buttonsWith("image")) {
    const step = button.dataset.image
    button.addEventListener("click", () => {
      if (step === "batch") sendCommand("show_batch_image")
      else sendCommand("step_validation_image", {dx: Number(step)})
    })
  }
}

/**
 * @param {InputImageData} data
 * @param {WireArray | undefined} atlas
 */
function drawInputImage(data, atlas) {
  const canvas = /** @type {HTMLCanvasElement} */ (byId("input")), tiles = paintAtlas(atlas, "gray")
  byId("input-title").textContent = data.title ?? ""
  byId("input-status").textContent = data.waiting ? IMAGE_PENDING : data.note ?? ""
  canvas.hidden = tiles == null
  drawPrediction(data.prediction)
  if (tiles == null) return
  canvas.width = tiles.width
  canvas.height = tiles.height
  canvas.dataset.small = String(tiles.width < SMALL)
  context2d(canvas).drawImage(tiles.canvas, 0, 0)
}
