/** An image or a crop of it, as large as its place allows and enlarged under the pointer. */

import {createElement} from "../shared/dom.js"
import {colors} from "../shared/theme.js"
import {hideTooltip, isTooltipOf, moveTooltip, showTooltip} from "../shared/tooltip.js"
import {context2d, paintAtlas} from "./tile_atlas.js"

/** @import {Box, WireArray} from "../shared/parts.js" */
/** @import {CropFrame} from "./crop_frame.js" */

const ENLARGED = 256 // px
const OUTLINE_SHADOW = "rgb(0 0 0 / 65%)" // so that the outline is visible on any image

/**
 * @typedef {object} ImageContent
 * @property {WireArray} pixels one image, as `paintAtlas` expects it
 * @property {string} [colormap] gray, unless given
 * @property {Box} [outline] a box to outline, in pixels of the image
 */

/** @typedef {ImageContent & CropFrame} FramedImage */

/** @type {FramedImage | null} */
let enlarged = null

/** @param {HTMLElement} pane in which images may be replaced while the pointer rests on them */
export function startEnlargedImages(pane) {
  pane.addEventListener("pointermove", (event) => {
    if (/** @type {Element} */ (event.target).closest(".picture") == null) hideEnlarged()
  })
  pane.addEventListener("pointerleave", hideEnlarged)
}

export function hideEnlarged() {
  hideTooltip("inspection")
  enlarged = null
}

/**
 * @param {FramedImage} image
 * @param {string[]} lines of the tooltip; the first is its title
 */
export function framedImage(image, lines) {
  const canvas = createElement("canvas"), [height, width] = image.frame
  canvas.style.aspectRatio = `${width} / ${height}`
  canvas.style.width = `min(100cqw, 100cqh * ${width / height})`
  paintFramed(canvas, image, ENLARGED)
  return createElement("div", {
    class: "picture",
    onpointermove: (/** @type {PointerEvent} */ event) => enlarge(event, image, lines),
  }, canvas)
}

/**
 * @param {PointerEvent} event
 * @param {FramedImage} image
 * @param {string[]} lines
 */
function enlarge(event, image, [title, ...lines]) {
  if (isTooltipOf("inspection") && enlarged === image) {
    moveTooltip(event, "left")
    return
  }
  const canvas = createElement("canvas")
  paintFramed(canvas, image, ENLARGED)
  enlarged = image
  const children = [createElement("b", {}, title), canvas, ...lines.map((line) => createElement("small", {}, line))]
  showTooltip("inspection", event, children, "left")
}

/**
 * @param {HTMLCanvasElement} canvas
 * @param {FramedImage} image
 * @param {number} side of the longer side of the frame, px
 */
function paintFramed(canvas, {pixels, colormap = "gray", frame, size, offset, outline}, side) {
  const tiles = paintAtlas(pixels, colormap)
  if (tiles == null) return
  const scale = side / Math.max(...frame), [height, width] = size.map((length) => length * scale)
  canvas.height = Math.max(1, Math.round(frame[0] * scale))
  canvas.width = Math.max(1, Math.round(frame[1] * scale))
  const context = context2d(canvas)
  context.imageSmoothingEnabled = height / tiles.height < 2
  context.drawImage(tiles.canvas, 0, 0, tiles.width, tiles.height, offset[1] * scale, offset[0] * scale, width, height)
  if (outline != null) paintOutline(context, /** @type {Box} */ (outline.map((edge) => edge * scale)), side)
}

/**
 * @param {CanvasRenderingContext2D} context
 * @param {Box} box px
 * @param {number} side px
 */
function paintOutline(context, [top, left, bottom, right], side) {
  context.lineWidth = Math.max(1.5, side / 90)
  context.strokeStyle = OUTLINE_SHADOW
  context.strokeRect(left - 0.5, top - 0.5, right - left + 1, bottom - top + 1)
  context.strokeStyle = colors().selected
  context.lineWidth /= 2
  context.strokeRect(left - 0.5, top - 0.5, right - left + 1, bottom - top + 1)
}
