/** The slider that selects a slice of three-dimensional kernels and maps. */

import {byId} from "../shared/dom.js"
import {sendCommand} from "../shared/link.js"

export function startSliceSlider() {
  const slider = depthSlider()
  slider.addEventListener("input", () => {
    showPart(slider)
    sendCommand("set_volume_slice", {value: Number(slider.value)})
  })
}

/** @param {number | null | undefined} depth 0 to 1; none: the layer has no slices */
export function drawSliceSlider(depth) {
  byId("depth-field").hidden = depth == null
  const slider = depthSlider()
  if (depth == null || document.activeElement === slider) return
  slider.value = String(depth)
  showPart(slider)
}

/** @param {HTMLInputElement} slider */
function showPart(slider) {
  slider.style.setProperty("--part", `${100 * Number(slider.value)}%`)
}

function depthSlider() {
  return /** @type {HTMLInputElement} */ (byId("depth"))
}
