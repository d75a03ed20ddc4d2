/** A picture of a person's own: picked, dropped or pasted, decoded and resized here, and sent as pixels. */

import {sendCommand} from "../shared/link.js"
import {context2d} from "../layer/tile_atlas.js"

const CHUNK = 0x8000 // bytes that are made text in one call

/**
 * Send a picture to the training; throw where the file is none.
 * @param {Blob} file
 * @param {number} side px: the longest of the picture that is sent
 */
export async function sendPicture(file, side) {
  const bitmap = await createImageBitmap(file)
  const {width, height} = fittedSize(bitmap.width, bitmap.height, side)
  const canvas = document.createElement("canvas")
  canvas.width = width
  canvas.height = height
  const context = context2d(canvas)
  context.fillStyle = "#fff" // behind a picture that is transparent
  context.fillRect(0, 0, width, height)
  context.imageSmoothingQuality = "high"
  context.drawImage(bitmap, 0, 0, width, height)
  bitmap.close()
  const pixels = withoutOpacity(context.getImageData(0, 0, width, height).data)
  sendCommand("show_picture", {pixels: toBase64(pixels), width, height})
}

/**
 * The size of a picture within a square; a smaller one is not enlarged.
 * @param {number} width px
 * @param {number} height px
 * @param {number} side px
 */
export function fittedSize(width, height, side) {
  const scale = Math.min(1, side / Math.max(width, height))
  return {width: Math.max(1, Math.round(width * scale)), height: Math.max(1, Math.round(height * scale))}
}

/** @param {ArrayLike<number>} rgba red, green, blue and opacity of each pixel */
export function withoutOpacity(rgba) {
  const pixels = new Uint8Array(rgba.length / 4 * 3)
  for (let i = 0, j = 0; i < rgba.length; i += 4) {
    pixels[j++] = rgba[i]
    pixels[j++] = rgba[i + 1]
    pixels[j++] = rgba[i + 2]
  }
  return pixels
}

/** @param {Uint8Array} bytes */
export function toBase64(bytes) {
  let text = ""
  for (let i = 0; i < bytes.length; i += CHUNK) text += String.fromCharCode(...bytes.subarray(i, i + CHUNK))
  return btoa(text)
}

/**
 * The first image among files that were dropped or pasted.
 * @param {DataTransfer | null} data
 * @returns {File | undefined}
 */
export function firstImageFile(data) {
  return [...data?.files ?? []].find((file) => file.type.startsWith("image/"))
}
