/** Where a crop of an image lies in the receptive field that it is cut to. */

/** @import {Box, Size} from "../shared/parts.js" */

/**
 * @typedef {object} CropFrame lengths in pixels of the image, height or y first
 * @property {Size} frame size of the whole receptive field
 * @property {Size} size of the crop
 * @property {[y: number, x: number]} offset of the crop in the frame
 */

/**
 * A receptive field that extends beyond the border of the image sees nothing there, so its crop is
 * smaller. The crop lies at the side of the frame that is inside the image.
 * @param {Box} box of the crop in the image
 * @param {Size} receptiveField 0 where it is the whole image
 * @returns {CropFrame}
 */
export function frameCrop([top, left, bottom, right], [fieldHeight, fieldWidth]) {
  const height = bottom - top, width = right - left
  /** @type {Size} */
  const frame = [Math.max(height, fieldHeight), Math.max(width, fieldWidth)]
  return {size: [height, width], frame, offset: [top === 0 ? frame[0] - height : 0, left === 0 ? frame[1] - width : 0]}
}
