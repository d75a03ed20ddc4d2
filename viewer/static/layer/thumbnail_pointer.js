/** The pointer over a view of thumbnails: zoom, hover, click, selection by box or lasso, and dragging a filter. */

import {requestHoveredFilter} from "../shared/hovered_filter.js"
import {sendCommand, subscribe} from "../shared/link.js"
import {extendsSelection} from "../shared/modifiers.js"
import {wheelZoomsView} from "../shared/page_scroll.js"
import {colors} from "../shared/theme.js"
import {hideTooltip, refreshTooltip, showTooltip} from "../shared/tooltip.js"
import {clickFilter, filterSelection, hoverFilter, selectFilters} from "./filter_selection.js"
import {boxRegion, hitThumbnail, lassoRegion, nearestNeighbors} from "./geometry.js"
import {paintThumbnail} from "./thumbnail_painting.js"
import {describeFilter} from "./thumbnail_tooltip.js"

/** @import {Neighbor, Point} from "./geometry.js" */
/** @import {ThumbnailView} from "./thumbnail_view.js" */

const NEIGHBORS = 4 // whose mean a dropped filter becomes
const MIN_DRAG = 5 // px; less is a click
const MIN_HALF_SIDE = 5 // px, so that small thumbnails can be hit
const ZOOM_PER_PX = 0.0016

/** @typedef {{path: Point[], row: number, kind: "set" | "select", hasMoved: boolean}} Drag `path` begins where it was pressed */

/** @type {"box" | "lasso"} */
let selectionShape = "box"
/** @type {ThumbnailPointer | null} */
let dragging = null

/** @param {"box" | "lasso"} shape that dragging over an empty place selects by */
export function setSelectionShape(shape) {
  selectionShape = shape
}

/** Cancel the drag that is under way; return whether there was one. */
export function cancelDrag() {
  const pointer = dragging
  pointer?.cancel()
  return pointer != null
}

export class ThumbnailPointer {
  /** @param {ThumbnailView} view */
  constructor(view) {
    this.view = view
    /** @type {Drag | null} */
    this.drag = null
    /** @type {number | null} id of the filter under the pointer */
    this.hovered = null
    view.paintDrag = (context, positions) => this.paintDrag(context, positions)
    view.onUpdate = () => this.refreshTooltip()
    subscribe("hovered_filter", () => this.refreshTooltip())
    const {canvas} = view
    canvas.addEventListener("pointermove", (event) => this.onMove(event))
    canvas.addEventListener("pointerleave", () => this.hover(-1))
    canvas.addEventListener("pointerdown", (event) => this.onDown(event))
    canvas.addEventListener("pointerup", (event) => this.onUp(event))
    canvas.addEventListener("pointercancel", () => this.cancel())
    canvas.addEventListener("wheel", (event) => this.onWheel(event), {passive: false})
    canvas.addEventListener("dblclick", () => view.resetZoom())
  }

  /**
   * @param {MouseEvent} event
   * @returns {Point}
   */
  pointOf({clientX, clientY}) {
    const box = this.view.canvas.getBoundingClientRect()
    return [clientX - box.left, clientY - box.top]
  }

  /** @param {MouseEvent} event */
  rowUnder(event) {
    const {view} = this
    return hitThumbnail(view.positions(), this.pointOf(event), Math.max(MIN_HALF_SIDE, view.side() / 2))
  }

  /** @param {WheelEvent} event */
  onWheel(event) {
    if (!wheelZoomsView(event)) return
    event.preventDefault()
    this.view.zoomBy(Math.exp(-event.deltaY * ZOOM_PER_PX), this.pointOf(event))
  }

  /** @param {PointerEvent} event */
  onDown(event) {
    if (event.button !== 0) return
    const row = this.rowUnder(event), {view} = this
    const isMovable = view.name === "coefficients" && row >= 0 && view.degenerateKind(row) === 0
    this.drag = {path: [this.pointOf(event)], row, kind: isMovable ? "set" : "select", hasMoved: false}
    view.canvas.setPointerCapture(event.pointerId)
    dragging = this
  }

  /** @param {PointerEvent} event */
  onMove(event) {
    const {drag, view} = this
    if (drag == null) {
      const row = this.rowUnder(event)
      view.canvas.style.cursor = row >= 0 ? "pointer" : "crosshair"
      this.hover(row, event)
      return
    }
    const [x, y] = this.pointOf(event), [x0, y0] = drag.path[0]
    drag.path.push([x, y])
    if (!drag.hasMoved && Math.hypot(x - x0, y - y0) < MIN_DRAG) return
    drag.hasMoved = true
    this.hover(-1)
    view.draw()
  }

  /** @param {PointerEvent} event */
  onUp(event) {
    const {drag, view} = this
    this.drag = dragging = null
    if (drag == null) return
    const extend = extendsSelection(event)
    if (!drag.hasMoved) {
      if (drag.row >= 0) clickFilter(view.ids[drag.row], extend)
    } else if (drag.kind === "set") this.drop(drag)
    else this.selectRegion(drag, extend)
    view.draw()
  }

  cancel() {
    this.drag = dragging = null
    this.view.draw()
  }

  /**
   * @param {Drag} drag
   * @param {boolean} extend
   */
  selectRegion({path}, extend) {
    const {view} = this, end = /** @type {Point} */ (path.at(-1))
    const contains = selectionShape === "lasso" ? lassoRegion(path) : boxRegion(path[0], end), positions = view.positions()
    const ids = view.ids.filter((_, i) => contains(positions[i]))
    selectFilters(extend ? [...new Set([...filterSelection.selected, ...ids])] : ids)
  }

  /**
   * Return the filters whose mean a dragged one would become.
   * @param {Drag} drag
   * @returns {Neighbor[]}
   */
  neighborsOf({path, row}) {
    const {view} = this, end = /** @type {Point} */ (path.at(-1))
    return nearestNeighbors(view.positions(), end, NEIGHBORS, (i) => i !== row && view.degenerateKind(i) === 0)
  }

  /**
   * A filter was dropped: stage setting it to the mean of those around it.
   * @param {Drag} drag
   */
  drop(drag) {
    const {view} = this, [width, height] = view.size, [x, y] = /** @type {Point} */ (drag.path.at(-1))
    if (x < 0 || y < 0 || x > width || y > height) return
    const neighbors = this.neighborsOf(drag)
    if (neighbors.length === 0) return
    const id = view.ids[drag.row]
    selectFilters([id])
    sendCommand("stage_filter_as_weighted_mean", {
      ids: [id, ...neighbors.map(({index}) => view.ids[index])],
      weights: neighbors.map(({weight}) => weight),
    })
  }

  /**
   * @param {CanvasRenderingContext2D} context
   * @param {Point[]} positions
   */
  paintDrag(context, positions) {
    const {drag} = this
    if (drag == null || !drag.hasMoved) return
    context.strokeStyle = colors().selected
    context.fillStyle = colors().hover
    context.lineWidth = 1
    context.beginPath()
    if (drag.kind === "set") this.paintDraggedFilter(context, positions, drag)
    else paintRegion(context, drag.path)
  }

  /**
   * @param {CanvasRenderingContext2D} context
   * @param {Point[]} positions
   * @param {Drag} drag
   */
  paintDraggedFilter(context, positions, drag) {
    const {view} = this, {tiles} = view, neighbors = this.neighborsOf(drag), end = /** @type {Point} */ (drag.path.at(-1))
    if (tiles == null) return
    for (const {index} of neighbors) {
      context.moveTo(...end)
      context.lineTo(...positions[index])
    }
    context.stroke()
    const side = view.side()
    for (const {index} of neighbors) {
      paintThumbnail(view, tiles, context, {i: index, at: positions[index], side: side * 1.25, isSelected: true})
    }
    paintThumbnail(view, tiles, context, {i: drag.row, at: end, side: side * 1.55, isSelected: true})
  }

  /**
   * @param {number} row -1 for none
   * @param {MouseEvent} [event]
   */
  hover(row, event) {
    const {view} = this, id = row >= 0 ? view.ids[row] : null
    if (id !== this.hovered) requestHoveredFilter(id == null ? -1 : view.data.layer_index ?? -1, view.data.indices?.[row] ?? -1)
    this.hovered = id
    hoverFilter(id)
    if (row < 0 || event == null) hideTooltip("layer")
    else showTooltip("layer", event, describeFilter(view, row), "left")
  }

  /** Describe the filter under a resting pointer by the newest image and numbers. */
  refreshTooltip() {
    if (this.hovered == null) return
    const row = this.view.rows.get(this.hovered)
    if (row == null) this.hover(-1)
    else refreshTooltip("layer", () => describeFilter(this.view, row))
  }
}

/**
 * @param {CanvasRenderingContext2D} context
 * @param {Point[]} path
 */
function paintRegion(context, path) {
  const [x0, y0] = path[0], [x1, y1] = /** @type {Point} */ (path.at(-1))
  if (selectionShape === "lasso") for (const point of path) context.lineTo(...point)
  else context.rect(x0, y0, x1 - x0, y1 - y0)
  context.globalAlpha = 0.16
  context.fill()
  context.globalAlpha = 0.9
  context.stroke()
  context.globalAlpha = 1
}
