/** The keys of a view of thumbnails that has the focus: the arrows select the nearest filter, and the view zooms. */

import {filterSelection, moveSelection} from "./filter_selection.js"
import {neighborInDirection} from "./geometry.js"

/** @import {Point} from "./geometry.js" */
/** @import {ThumbnailView} from "./thumbnail_view.js" */

const ZOOM = 1.6
/** @type {Record<string, Point>} */
const DIRECTIONS = {ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1]}
/** @type {Record<string, (view: ThumbnailView) => void>} */
const ACTIONS = {
  z: (view) => view.zoomBy(ZOOM, primaryPosition(view)),
  x: (view) => view.zoomBy(1 / ZOOM, primaryPosition(view)),
  0: (view) => view.resetZoom(),
}

/** @param {ThumbnailView} view */
export function startThumbnailKeys(view) {
  view.canvas.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey) return
    const direction = DIRECTIONS[event.key], action = ACTIONS[event.key.toLowerCase()]
    if (direction == null && action == null) return
    event.preventDefault()
    event.stopPropagation() // the same keys of the page act on the network
    if (action != null) action(view)
    else moveInView(view, direction, event.shiftKey)
  })
}

/**
 * @param {ThumbnailView} view
 * @param {Point} direction
 * @param {boolean} extend
 */
function moveInView(view, direction, extend) {
  const row = view.rows.get(filterSelection.selected[0])
  if (row == null) return
  const next = neighborInDirection(view.positions(), row, direction)
  if (next >= 0) moveSelection(view.ids[next], extend)
}

/**
 * Return the center of the filter that was selected last, or of the view if it does not show that one.
 * @param {ThumbnailView} view
 * @returns {Point}
 */
function primaryPosition(view) {
  const row = view.rows.get(filterSelection.selected[0]), [width, height] = view.size
  return row == null ? [width / 2, height / 2] : view.positions()[row]
}
