/** A view as a drawing: the thumbnails and borders of the screen, and the index of each filter. */

import {countOf, formatNumber, joinFacts} from "../shared/format.js"
import {latest} from "../shared/link.js"
import {describeDegenerate, summarizeDegenerate} from "./degenerate.js"
import {escapeXml, px, svgElement} from "../shared/svg_text.js"
import {borderOf, STAGED_OPACITY, thumbnailBox} from "./thumbnail_painting.js"
import {context2d, tileBox} from "./tile_atlas.js"

/** @import {Thumbnail, ThumbnailView} from "./thumbnail_view.js" */
/** @import {TileAtlas} from "./tile_atlas.js" */

const TITLE_HEIGHT = 40 // px
const MIN_SIDE_WITH_INDEX = 17 // px; smaller thumbnails have no room for it
const SCALE = 2 // how much larger than on the screen the drawing opens
/** @type {Record<string, string>} */
const METHODS = {tsne: "t-SNE", umap: "UMAP", pca: "PCA"}
const INDEX_STYLE =
  ".index { font-size: 7px; fill: #fff; stroke: #000; stroke-opacity: .6; stroke-width: 1.6px; paint-order: stroke }"

/**
 * Return the text of an SVG file that needs no other file.
 * @param {ThumbnailView} view
 */
export function svgDrawing(view) {
  const [width, height] = view.size, total = height + TITLE_HEIGHT
  const style = getComputedStyle(document.documentElement), {tiles} = view
  const cssValue = (/** @type {string} */ name) => style.getPropertyValue(name).trim()
  const visible = view.thumbnails(view.positions()).filter(({at: [x, y], side}) =>
    x > -side && y > -side && x < width + side && y < height + side)
  return `<?xml version="1.0" encoding="UTF-8"?>\n` + svgElement("svg",
    {xmlns: "http://www.w3.org/2000/svg", width: SCALE * width, height: SCALE * total, viewBox: `0 0 ${width} ${total}`,
     "font-family": cssValue("--font")},
    svgElement("style", {}, INDEX_STYLE),
    svgElement("clipPath", {id: "view"}, svgElement("rect", {width, height})),
    svgElement("rect", {width, height: total, fill: cssValue("--card")}),
    title(view, cssValue),
    svgElement("g", {transform: `translate(0 ${TITLE_HEIGHT})`, "clip-path": "url(#view)"},
      degenerateRow(view, cssValue),
      ...tiles == null ? [] : visible.map((one) => thumbnail(view, tiles, one))),
  ) + "\n"
}

/**
 * @param {ThumbnailView} view
 * @param {(name: string) => string} cssValue
 */
function title(view, cssValue) {
  const method = view.name === "maps" ? "" : METHODS[latest("layer_panel")?.method ?? ""]
  const facts = joinFacts([countOf(view.count, "filter"), method, `batch ${view.data.step}`])
  const heading = {x: 10, y: 17, fill: cssValue("--text"), "font-size": 12, "font-weight": 600}
  return svgElement("text", heading, escapeXml(`${view.data.layer} · ${view.data.title}`)) +
    svgElement("text", {x: 10, y: 31, fill: cssValue("--muted"), "font-size": 10}, escapeXml(facts))
}

/**
 * @param {ThumbnailView} view
 * @param {(name: string) => string} cssValue
 */
function degenerateRow(view, cssValue) {
  const rowHeight = view.degenerateRowHeight(), [width, height] = view.size, y = height - rowHeight - 0.5
  if (rowHeight === 0) return ""
  const label = {x: width - 6, y: height - rowHeight + 10, "text-anchor": "end", fill: cssValue("--muted"), "font-size": 10}
  return svgElement("line", {x1: 4, x2: width - 4, y1: y, y2: y, stroke: cssValue("--line")}) +
    svgElement("text", label, escapeXml(summarizeDegenerate(view.data.degenerate ?? [], view.name)))
}

/**
 * @param {ThumbnailView} view
 * @param {TileAtlas} tiles
 * @param {Thumbnail} thumbnail
 */
function thumbnail(view, tiles, {i, at, side, isSelected}) {
  const [x, y, width, height] = thumbnailBox(tiles, at, side), border = borderOf(view, i, isSelected)
  const index = view.data.indices?.[i] ?? i
  /** @type {Record<string, string>} */
  const rendering = view.isSmooth ? {} : {style: "image-rendering: optimizeSpeed; image-rendering: pixelated"}
  const parts = [
    svgElement("title", {}, escapeXml(joinFacts([`filter ${index}`, describeDegenerate(view.degenerateKind(i), view.name),
      `mean |∇| ${formatNumber(view.gradient(i))}`, `Σ activation ${formatNumber(view.activation(i))}`]))),
    svgElement("image", {x: px(x), y: px(y), width: px(width), height: px(height), preserveAspectRatio: "none",
      href: tileAsPng(tiles, i), ...rendering}),
    svgElement("rect", {x: px(x - 0.5), y: px(y - 0.5), width: px(width + 1), height: px(height + 1),
      fill: border.isStaged ? border.color : "none", "fill-opacity": STAGED_OPACITY, stroke: border.color,
      "stroke-width": border.width}),
  ]
  if (side >= MIN_SIDE_WITH_INDEX) {
    const place = {class: "index", x: px(x + width - 1.5), y: px(y + height - 2), "text-anchor": "end"}
    parts.push(svgElement("text", place, String(index)))
  }
  return svgElement("g", {"data-filter": index, "data-id": view.ids[i]}, ...parts)
}

/**
 * @param {TileAtlas} tiles
 * @param {number} i
 */
function tileAsPng(tiles, i) {
  const sheet = document.createElement("canvas")
  sheet.width = tiles.width
  sheet.height = tiles.height
  context2d(sheet).drawImage(tiles.canvas, ...tileBox(tiles, i), 0, 0, tiles.width, tiles.height)
  return sheet.toDataURL("image/png")
}
