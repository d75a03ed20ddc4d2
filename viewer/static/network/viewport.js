/** The part of the network's layout that is in view. Layout units are px at zoom 1. */

import {clamp} from "../shared/math.js"

export const MAX_ZOOM = 24
const SHOWS_ALL = 1.001 // up to this zoom, the whole layout counts as shown
const NODE_GROWTH = 0.85 // nodes grow more slowly than the distances between them

/**
 * @typedef {object} Transform from the layout to the screen: `(x - left) * scaleX`
 * @property {number} left
 * @property {number} top
 * @property {number} scaleX
 * @property {number} scaleY
 */

/** Factor by which nodes are drawn larger than in the layout.
 * @param {Transform} transform */
export const nodeScale = ({scaleX}) => Math.max(1, scaleX) ** NODE_GROWTH

export class Viewport {
  /** Size of the layout. */
  layoutWidth = 1
  layoutHeight = 1
  /** Size of the element, px. */
  width = 1
  height = 1
  /** The point of the layout at the top left. */
  left = 0
  top = 0
  zoom = 1

  /**
   * A layout of another size is shown as a whole.
   * @param {number} width
   * @param {number} height
   */
  setLayoutSize(width, height) {
    if (width === this.layoutWidth && height === this.layoutHeight) return
    Object.assign(this, {layoutWidth: width, layoutHeight: height, left: 0, top: 0, zoom: 1})
  }

  /**
   * @param {number} width px
   * @param {number} height px
   */
  setSize(width, height) {
    Object.assign(this, {width, height})
  }

  /** @returns {Transform} */
  get transform() {
    return {
      left: this.left, top: this.top,
      scaleX: this.width / this.layoutWidth * this.zoom, scaleY: this.height / this.layoutHeight * this.zoom,
    }
  }

  get showsAll() {
    return this.zoom < SHOWS_ALL
  }

  /**
   * @param {number} x of the layout
   * @param {number} y
   * @returns {[number, number]} px
   */
  toScreen(x, y) {
    const {left, top, scaleX, scaleY} = this.transform
    return [(x - left) * scaleX, (y - top) * scaleY]
  }

  /**
   * @param {number} x px
   * @param {number} y px
   * @returns {[number, number]} a point of the layout
   */
  toLayout(x, y) {
    const {left, top, scaleX, scaleY} = this.transform
    return [left + x / scaleX, top + y / scaleY]
  }

  /**
   * Show the part of the layout that begins at a point, as far as there is layout.
   * @param {number} left
   * @param {number} top
   * @param {number} zoom
   */
  show(left, top, zoom = this.zoom) {
    this.zoom = clamp(zoom, 1, MAX_ZOOM)
    this.left = clamp(left, 0, this.layoutWidth - this.layoutWidth / this.zoom)
    this.top = clamp(top, 0, this.layoutHeight - this.layoutHeight / this.zoom)
  }

  /**
   * Zoom so that what is under a point of the screen stays there.
   * @param {number} x px
   * @param {number} y px
   * @param {number} factor
   */
  zoomAt(x, y, factor) {
    const [layoutX, layoutY] = this.toLayout(x, y)
    const zoom = clamp(this.zoom * factor, 1, MAX_ZOOM)
    const left = layoutX - x / this.width * this.layoutWidth / zoom
    const top = layoutY - y / this.height * this.layoutHeight / zoom
    this.show(left, top, zoom)
  }

  /**
   * Zoom so that a point of the layout comes to lie in the middle.
   * @param {number} x of the layout
   * @param {number} y
   * @param {number} factor
   */
  zoomAround(x, y, factor) {
    const zoom = clamp(this.zoom * factor, 1, MAX_ZOOM)
    this.show(x - this.layoutWidth / zoom / 2, y - this.layoutHeight / zoom / 2, zoom)
  }

  /** The point of the layout in the middle. @returns {[number, number]} */
  get center() {
    return this.toLayout(this.width / 2, this.height / 2)
  }
}
