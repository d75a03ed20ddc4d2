/** Painting a view of thumbnails: images, borders, and the row of degenerate filters. */

import {colors, isLight} from "../shared/theme.js"
import {summarizeDegenerate} from "./degenerate.js"
import {filterSelection} from "./filter_selection.js"
import {tileBox} from "./tile_atlas.js"

/** @import {Thumbnail, ThumbnailView} from "./thumbnail_view.js" */
/** @import {Point} from "./geometry.js" */
/** @import {TileAtlas} from "./tile_atlas.js" */

const HALO = {dark: "#0b1220", light: "#ffffff"} // around a selected thumbnail, whatever its image looks like
export const STAGED_OPACITY = 0.35

/**
 * @param {ThumbnailView} view
 * @param {CanvasRenderingContext2D} context
 * @param {number} pixelRatio
 */
export function paintView(view, context, pixelRatio) {
  const [width, height] = view.size
  context.setTransform(pixelRatio, 0, 0, pixelRatio, 0, 0)
  context.clearRect(0, 0, width, height)
  if (view.count === 0 || view.tiles?.count !== view.count) return
  const positions = view.positions()
  context.imageSmoothingEnabled = view.isSmooth
  paintDegenerateRow(view, context)
  for (const thumbnail of view.thumbnails(positions)) paintThumbnail(view, view.tiles, context, thumbnail)
  view.paintOverlay(context, positions)
}

/**
 * @param {ThumbnailView} view
 * @param {TileAtlas} tiles
 * @param {CanvasRenderingContext2D} context
 * @param {Thumbnail} thumbnail
 */
export function paintThumbnail(view, tiles, context, {i, at, side, isSelected}) {
  const [left, top, width, height] = thumbnailBox(tiles, at, side)
  context.drawImage(tiles.canvas, ...tileBox(tiles, i), left, top, width, height)
  const border = borderOf(view, i, isSelected)
  if (isSelected) {
    context.lineWidth = border.width + 2.5
    context.strokeStyle = isLight() ? HALO.light : HALO.dark
    context.strokeRect(left - 0.5, top - 0.5, width + 1, height + 1)
  }
  context.lineWidth = border.width
  context.strokeStyle = border.color
  context.strokeRect(left - 0.5, top - 0.5, width + 1, height + 1)
  if (border.isStaged) {
    context.globalAlpha = STAGED_OPACITY
    context.fillStyle = border.color
    context.fillRect(left, top, width, height)
    context.globalAlpha = 1
  }
}

/**
 * Return left, top, width and height of a thumbnail; `side` is its longer one.
 * @param {TileAtlas} tiles
 * @param {Point} center
 * @param {number} side
 * @returns {[number, number, number, number]}
 */
export function thumbnailBox({width, height}, [x, y], side) {
  const wide = width >= height ? side : side * width / height
  const high = width >= height ? side * height / width : side
  return [x - wide / 2, y - high / 2, wide, high]
}

/**
 * Return the border of a filter: staged, selected, frozen, else the magnitude of its gradient.
 * @param {ThumbnailView} view
 * @param {number} i
 * @param {boolean} isSelected
 */
export function borderOf(view, i, isSelected) {
  const theme = colors(), id = view.ids[i], steps = theme.gradient.length
  const isStaged = filterSelection.staged.has(id), isFrozen = filterSelection.frozen.has(id)
  const step = Math.min(steps - 1, Math.floor((view.data.amplitude?.[i] ?? 0) * steps))
  const color = isStaged ? theme.staged : isSelected ? theme.selected : isFrozen ? theme.frozen : theme.gradient[step]
  return {width: isSelected ? 2 : isStaged || isFrozen ? 1.5 : 1, color, isStaged}
}

/**
 * Paint the line above the degenerate filters, and their number by kind.
 * @param {ThumbnailView} view
 * @param {CanvasRenderingContext2D} context
 */
function paintDegenerateRow(view, context) {
  const rowHeight = view.degenerateRowHeight(), [width, height] = view.size
  if (rowHeight === 0) return
  const style = getComputedStyle(document.documentElement)
  context.strokeStyle = style.getPropertyValue("--line")
  context.lineWidth = 1
  context.beginPath()
  context.moveTo(4, height - rowHeight - 0.5)
  context.lineTo(width - 4, height - rowHeight - 0.5)
  context.stroke()
  context.fillStyle = style.getPropertyValue("--muted")
  context.font = `10px ${style.getPropertyValue("--font")}`
  context.textAlign = "right"
  context.fillText(summarizeDegenerate(view.data.degenerate ?? [], view.name), width - 6, height - rowHeight + 10)
}
