/** A view of the layer's filters as thumbnails: what it shows, where each thumbnail is, how it moves there. */

import {averageLag} from "../shared/link.js"
import {clamp, easeOut} from "../shared/math.js"
import {motionLevel} from "../shared/motion.js"
import {filterSelection} from "./filter_selection.js"
import {keepInside} from "./geometry.js"
import {context2d, paintAtlas} from "./tile_atlas.js"
import {paintView} from "./thumbnail_painting.js"

/** @import {Point} from "./geometry.js" */
/** @import {ViewData, WireArray} from "../shared/parts.js" */
/** @import {TileAtlas} from "./tile_atlas.js" */

const MOVE_MS = 600
const MAX_LAG_MS = 100 // a page that lags behind more spends no time on movement
const MIN_MOVE = 2 // px; less is not worth a movement
const MAX_ZOOM = 24
const MAX_SIDE = 44, MIN_SIDE = 6 // px, of a thumbnail
const DEGENERATE_ROW = 40 // px, height of the row of degenerate filters

/** @typedef {{i: number, at: Point, side: number, isSelected: boolean}} Thumbnail */

/** @type {ViewData} */
const NO_DATA = {layer: "", title: "", colormap: "gray", status: "", busy: false, step: 0, revision: 0}

export class ThumbnailView {
  /**
   * @param {string} name
   * @param {HTMLCanvasElement} canvas
   */
  constructor(name, canvas) {
    this.name = name
    this.canvas = canvas
    this.context = context2d(canvas)
    this.data = NO_DATA
    /** @type {number[]} ids of the filters, in the order of the layer */
    this.ids = []
    /** @type {Map<number, number>} row of each id */
    this.rows = new Map()
    /** @type {[width: number, height: number]} of the canvas, CSS px */
    this.size = [0, 0]
    this.zoom = 1
    /** @type {Point} */
    this.pan = [0, 0]
    /** @type {Map<number, Point>} where the filters were before they began to move */
    this.origins = new Map()
    /** @type {number | null} */
    this.movingSince = null
    /** @type {((context: CanvasRenderingContext2D, positions: Point[]) => void) | null} */
    this.paintDrag = null
    /** @type {(() => void) | null} called after new data */
    this.onUpdate = null
    /** @type {WireArray | undefined} */
    this.atlas = undefined
    /** @type {TileAtlas | null} */
    this.paintedTiles = null
    this.isDrawRequested = false
    this.measure()
    new ResizeObserver(() => {
      this.measure()
      this.draw()
    }).observe(canvas)
  }

  get count() {
    return this.ids.length
  }

  /**
   * Show new data; the thumbnails move there from where they are now.
   * @param {ViewData} data
   * @param {WireArray | undefined} atlas
   */
  update(data, atlas) {
    this.rememberOrigins()
    const isOtherLayer = data.layer !== this.data.layer
    this.data = data
    this.ids = Array.from(data.ids ?? [])
    this.rows = new Map(this.ids.map((id, i) => [id, i]))
    if (atlas !== this.atlas) {
      this.atlas = atlas
      this.paintedTiles = null
    }
    if (isOtherLayer) {
      this.origins.clear()
      this.resetZoom()
    }
    const moves = motionLevel() > 0 && averageLag() < MAX_LAG_MS && this.hasMoved()
    this.movingSince = moves ? performance.now() : null
    this.draw()
    this.onUpdate?.()
  }

  rememberOrigins() {
    const positions = this.positions()
    this.origins = new Map(this.ids.map((id, i) => [id, positions[i]]))
  }

  /** Whether any filter is visibly elsewhere than before. */
  hasMoved() {
    return this.ids.some((id, i) => {
      const from = this.origins.get(id), to = this.target(i)
      return from != null && Math.hypot(to[0] - from[0], to[1] - from[1]) > MIN_MOVE
    })
  }

  /** The images, painted when they are first needed. */
  get tiles() {
    return this.paintedTiles ??= paintAtlas(this.atlas, this.data.colormap)
  }

  /** Whether images have so many pixels that these need not be distinguishable. */
  get isSmooth() {
    return (this.tiles?.width ?? 0) > 12
  }

  /** @param {number} i */
  gradient(i) {
    return this.data.values?.[2 * i] ?? NaN
  }

  /** @param {number} i */
  activation(i) {
    return this.data.values?.[2 * i + 1] ?? NaN
  }

  /**
   * Return why filter i has no place among the others: a number of `ComparisonExclusion`.
   * @param {number} i
   */
  degenerateKind(i) {
    return this.data.degenerate?.[i] ?? 0
  }

  /* ------------------------------------------------------------------------------------ layout */

  /** Read the size of the canvas: costly, because the browser has to lay out the page. */
  measure() {
    this.size = [this.canvas.clientWidth, this.canvas.clientHeight]
  }

  /** Return the side of a thumbnail at zoom 1, px. */
  baseSide() {
    return clamp(0.56 * Math.min(...this.size) / Math.sqrt(Math.max(1, this.count)), MIN_SIDE, MAX_SIDE)
  }

  /** Return the side of a thumbnail, px: it grows more slowly than the distances. */
  side() {
    return this.baseSide() * this.zoom ** 0.8
  }

  /**
   * Return the height of the row of degenerate filters, px.
   * @returns {number}
   */
  degenerateRowHeight() {
    return this.data.degenerate?.some((kind) => kind > 0) ? DEGENERATE_ROW : 0
  }

  /**
   * Return where filter i belongs.
   * @param {number} i
   * @returns {Point}
   */
  target(i) {
    const [width, height] = this.size, margin = Math.min(26, this.baseSide() / 2 + 3)
    const x = this.data.positions?.[2 * i] ?? NaN, y = this.data.positions?.[2 * i + 1] ?? NaN
    if (this.degenerateKind(i) > 0) return [width / 2 + x * (width / 2 - 16), height - 14]
    const middle = (height - this.degenerateRowHeight()) / 2
    return this.zoomed([width / 2 + x * (width / 2 - margin), middle - y * (middle - margin)])
  }

  /**
   * @param {Point} point at zoom 1
   * @returns {Point}
   */
  zoomed([x, y]) {
    return [this.pan[0] + x * this.zoom, this.pan[1] + y * this.zoom]
  }

  /**
   * Return where all filters are now, on their way or there.
   * @returns {Point[]}
   */
  positions() {
    const elapsed = this.movingSince == null ? MOVE_MS : performance.now() - this.movingSince
    const t = easeOut(clamp(elapsed / MOVE_MS, 0, 1))
    if (t >= 1) this.movingSince = null
    return this.ids.map((id, i) => {
      const to = this.target(i), from = t < 1 ? this.origins.get(id) : null
      if (from == null || !Number.isFinite(from[0])) return to
      return [from[0] + (to[0] - from[0]) * t, from[1] + (to[1] - from[1]) * t]
    })
  }

  /**
   * Return the center of a filter in the window's pixels, null if the layer has no such filter.
   * @param {number} id
   */
  screenPosition(id) {
    const row = this.rows.get(id), box = this.canvas.getBoundingClientRect()
    if (row == null) return null
    const [x, y] = this.positions()[row]
    return [box.left + x, box.top + y]
  }

  /**
   * Zoom about a point.
   * @param {number} factor
   * @param {Point} point
   */
  zoomBy(factor, [x, y]) {
    const zoom = clamp(this.zoom * factor, 1, MAX_ZOOM), change = zoom / this.zoom, [width, height] = this.size
    this.pan = [clamp(x - (x - this.pan[0]) * change, width * (1 - zoom), 0),
                clamp(y - (y - this.pan[1]) * change, height * (1 - zoom), 0)]
    this.zoom = zoom
    this.draw()
  }

  resetZoom() {
    this.zoom = 1
    this.pan = [0, 0]
    this.draw()
  }

  /**
   * Return all thumbnails in the order in which they are painted: selected and hovered ones last.
   * @param {Point[]} positions
   * @returns {Thumbnail[]}
   */
  thumbnails(positions) {
    const side = this.side(), selected = new Set(filterSelection.selected)
    /** @type {Thumbnail[]} */
    const below = [], /** @type {Thumbnail[]} */ above = []
    positions.forEach((at, i) => {
      if (!Number.isFinite(at[0])) return
      const id = this.ids[i], isSelected = selected.has(id), isHovered = id === filterSelection.hovered
      if (isSelected || isHovered) {
        const large = Math.max(side * this.enlargement(isHovered, selected.size), Math.min(24, side * 3))
        above.push({i, at: keepInside(at, large, this.size), side: large, isSelected})
      } else below.push({i, at, side: this.degenerateKind(i) > 0 ? Math.min(side, 22) : side, isSelected})
    })
    return [...below, ...above]
  }

  /**
   * Return how much larger a hovered or selected thumbnail is than the others.
   * @param {boolean} isHovered
   * @param {number} selectedCount
   * @returns {number}
   */
  enlargement(isHovered, selectedCount) {
    return isHovered ? 1.7 : selectedCount > 6 ? 1.15 : 1.4
  }

  /* ----------------------------------------------------------------------------------- drawing */

  /** Paint with the next animation frame, and with every other one while thumbnails move. */
  draw() {
    if (this.isDrawRequested || this.size[0] === 0) return
    this.isDrawRequested = true
    requestAnimationFrame(() => {
      this.isDrawRequested = false
      this.fitCanvas(devicePixelRatio)
      this.paint(this.context, devicePixelRatio)
      if (this.movingSince != null) requestAnimationFrame(() => this.draw())
    })
  }

  /** @param {number} pixelRatio */
  fitCanvas(pixelRatio) {
    const [width, height] = this.size.map((length) => Math.round(length * pixelRatio))
    if (this.canvas.width === width && this.canvas.height === height) return
    this.canvas.width = width
    this.canvas.height = height
  }

  /**
   * @param {CanvasRenderingContext2D} context of a canvas of this view's size
   * @param {number} pixelRatio device pixels per CSS pixel
   */
  paint(context, pixelRatio) {
    paintView(this, context, pixelRatio)
  }

  /**
   * Paint what lies above the thumbnails.
   * @param {CanvasRenderingContext2D} context
   * @param {Point[]} positions
   */
  paintOverlay(context, positions) {
    this.paintDrag?.(context, positions)
  }
}
