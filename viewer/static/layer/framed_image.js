/** An image or a crop of it, as large as its place allows and enlarged under the pointer. */

import {createElement} from "../shared/dom.js"
import {colors} from "../shared/theme.js"
import {hideTooltip, isTooltipOf, moveTooltip, showTooltip} from "../shared/tooltip.js"
import {CURVE_ASPECT, isCurve, paintFramedCurve} from "./framed_curve.js"
import {context2d, paintAtlas} from "./tile_atlas.js"

/** @import {Box, WireArray} from "../shared/parts.js" */
/** @import {CropFrame} from "./crop_frame.js" */

const ENLARGED = 256 // px
const OUTLINE_SHADOW = "rgb(0 0 0 / 65%)" // so that the outline is visible on any image

/**
 * @typedef {object} ImageContent
 * @property {WireArray} pixels one image, as `paintAtlas` expects it; a signal has levels (channels, values)
 * @property {string} [colormap] gray, unless given
 * @property {WireArray} [strip] behind a signal, one image with a row
 * @property {WireArray | null} [response] over a signal, levels (1, values)
 * @property {Box} [outline] a box to outline, in pixels of the image
 */

/** @typedef {ImageContent & CropFrame} FramedImage */

/** @type {FramedImage | null} */
let enlarged = null
/** @type {PointerEvent | null} the newest one over the pane */
let pointer = null
/** @type {WeakMap<Element, {image: FramedImage, lines: string[]}>} what each picture shows, and the lines of its tooltip */
const pictures = new WeakMap()

/** @param {HTMLElement} pane in which images may be replaced while the pointer rests on them */
export function startEnlargedImages(pane) {
  pane.addEventListener("pointermove", (event) => {
    pointer = event
    enlargeUnder(event, /** @type {Element} */ (event.target))
  })
  pane.addEventListener("pointerleave", () => {
    pointer = null
    hideEnlarged()
  })
}

/** Enlarge the picture that is now under a resting pointer: pictures have been replaced. */
export function refreshEnlargedImage() {
  if (pointer != null) enlargeUnder(pointer, document.elementFromPoint(pointer.clientX, pointer.clientY))
}

function hideEnlarged() {
  hideTooltip("inspection")
  enlarged = null
}

/**
 * @param {PointerEvent} event
 * @param {Element | null} element under the pointer
 */
function enlargeUnder(event, element) {
  const picture = element?.closest(".picture"), content = picture == null ? null : pictures.get(picture)
  if (content == null) hideEnlarged()
  else enlarge(event, content.image, content.lines)
}

/**
 * @param {FramedImage} image
 * @param {string[]} lines of the tooltip; the first is its title
 */
export function createFramedImage(image, lines) {
  const canvas = createElement("canvas")
  const [height, width] = isCurve(image.pixels) ? [1, CURVE_ASPECT] : image.frame
  canvas.style.aspectRatio = `${width} / ${height}`
  canvas.style.width = `min(100cqw, 100cqh * ${width / height})`
  paintFramed(canvas, image, ENLARGED)
  const picture = createElement("div", {class: "picture"}, canvas)
  pictures.set(picture, {image, lines})
  return picture
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
function paintFramed(canvas, image, side) {
  const {pixels, colormap = "gray", frame, size, offset, outline} = image
  if (isCurve(pixels)) {
    paintFramedCurve(canvas, image, 2 * side) // lines are sharp only on a screen's own pixels
    return
  }
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
