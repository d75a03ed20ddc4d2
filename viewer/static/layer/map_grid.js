/** The activation maps of the layer in rows, sorted by a statistic. */

import {motionLevel} from "../shared/motion.js"
import {config} from "../shared/page_config.js"
import {filterSelection} from "./filter_selection.js"
import {gridShape, rankFilters} from "./grid_layout.js"
import {ThumbnailView} from "./thumbnail_view.js"

/** @import {Point} from "./geometry.js" */
/** @import {ViewData, WireArray} from "../shared/parts.js" */

const SORT_MS = 4000 // new data sorts the grid again only after so long: maps that jump cannot be read
const MAX_CELL = 104 // px
const BAR = 3 // px
const MIN_SIDE_WITH_BAR = 16 // px
// Images look the same in both themes, and so do the bars on them.
const BAR_COLORS = {ground: "rgb(6 12 24 / 75%)", gradient: config.palettes.dark.orange, activation: "#8ad0ff"}

/** @typedef {"gradient" | "activation" | "index"} SortKey */

export class MapGrid extends ThumbnailView {
  /** @type {SortKey} */
  sortKey = "activation"
  /** @type {number[] | null} place of each filter in the grid; null: to be sorted */
  ranks = null
  sortedAt = -Infinity
  imageTitle = ""
  columns = 1
  cell = MAX_CELL // px

  /**
   * @param {ViewData} data
   * @param {WireArray | undefined} atlas
   * @param {string} [imageTitle] of the input image
   * @override
   */
  update(data, atlas, imageTitle = this.imageTitle) {
    const isOther = data.layer !== this.data.layer || imageTitle !== this.imageTitle
    if (isOther || performance.now() - this.sortedAt > SORT_MS) this.ranks = null
    this.imageTitle = imageTitle
    super.update(data, atlas)
  }

  /** @param {SortKey} key */
  sortBy(key) {
    this.rememberOrigins()
    this.sortKey = key
    this.ranks = null
    this.movingSince = motionLevel() > 0 ? performance.now() : null
    this.draw()
  }

  arrange() {
    const {columns, cell} = gridShape(this.count, ...this.size)
    this.columns = columns
    this.cell = Math.min(cell, MAX_CELL)
    if (this.ranks?.length === this.count) return
    this.sortedAt = performance.now()
    this.ranks = rankFilters(Array.from(this.data.indices ?? []), this.sortValue())
  }

  /** Return what filters are sorted by, null for their index. */
  sortValue() {
    if (this.sortKey === "index") return null
    const isGradient = this.sortKey === "gradient"
    return this.ids.map((_, i) => isGradient ? this.gradient(i) : this.activation(i))
  }

  /** @override */
  side() {
    this.arrange()
    return (this.cell - (this.cell > 16 ? 4 : 1.5)) * this.zoom
  }

  /** @override */
  degenerateRowHeight() {
    return 0
  }

  /**
   * @param {boolean} isHovered
   * @override
   */
  enlargement(isHovered) {
    return isHovered ? 1.3 : 1
  }

  /**
   * @param {number} i
   * @returns {Point}
   * @override
   */
  target(i) {
    if (this.ranks?.length !== this.count) this.arrange()
    const rank = this.ranks?.[i] ?? 0
    return this.zoomed([(rank % this.columns + 0.5) * this.cell, (Math.floor(rank / this.columns) + 0.5) * this.cell])
  }

  /**
   * Every map uses its full range of brightness, so a bar shows the statistic that sorts them.
   * @param {CanvasRenderingContext2D} context
   * @param {Point[]} positions
   * @override
   */
  paintOverlay(context, positions) {
    super.paintOverlay(context, positions)
    const values = this.sortValue(), side = this.side()
    if (values == null || this.sortKey === "index" || side < MIN_SIDE_WITH_BAR) return
    const largest = Math.max(...values.filter(Number.isFinite))
    positions.forEach(([x, y], i) => {
      if (this.ids[i] === filterSelection.hovered) return // it is enlarged, its bar would cross it
      const left = x - side / 2, top = y + side / 2 - BAR, length = values[i] > 0 ? side * values[i] / largest : 0
      context.fillStyle = BAR_COLORS.ground
      context.fillRect(left, top, side, BAR)
      context.fillStyle = BAR_COLORS[/** @type {"gradient" | "activation"} */ (this.sortKey)]
      context.fillRect(left, top, Math.min(side, length), BAR)
    })
  }
}
