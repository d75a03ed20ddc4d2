/** Pointer and wheel over the network view: hover, select, open, pan, zoom. */

import {byId} from "../shared/dom.js"
import {latest, sendCommand, subscribe} from "../shared/link.js"
import {extendsSelection} from "../shared/modifiers.js"
import {wheelZoomsView} from "../shared/page_scroll.js"
import {changeNodeSelection, nodeSelection} from "../shared/selection.js"
import {hideTooltip, refreshTooltip, showTooltip} from "../shared/tooltip.js"
import {nodeAt} from "./hit_test.js"
import {blockAt, filtersOfNode, networkNodes} from "./network_model.js"
import {boxBetween, filterRange, filtersInBox} from "./node_box.js"
import {describeNode, previewCoupling} from "./node_tooltip.js"
import {startPinch} from "./pinch.js"

/** @import {Box, BoxedFilters} from "./node_box.js" */
/** @import {PinchStep} from "./pinch.js" */
/** @import {Viewport} from "./viewport.js" */

const DRAG_PX = 4 // a press that moves less is a click
const WHEEL_SPEED = 0.0016
const SETTLE_MS = 500 // after a relayout, nodes are where they belong

/**
 * @typedef {object} Drag
 * @property {[x: number, y: number]} from where it began, px within the view
 * @property {number} left of the view, in the layout, when it began
 * @property {number} top
 * @property {boolean} isBox whether it selects by a box, instead of moving the view
 * @property {boolean} extend whether a box adds to the selection
 * @property {boolean} hasMoved
 */

/** Zooms, pans and selects; calls `viewChanged` when another part of the layout is in view. */
export class NetworkPointer {
  /** @type {Drag | null} */
  #drag = null
  /** @type {BoxedFilters | null} */
  #boxed = null
  /** @type {PointerEvent | null} the newest one over the view */
  #last = null
  /** @type {ReturnType<typeof setTimeout> | undefined} */
  #settling

  /**
   * @param {Viewport} viewport
   * @param {() => void} viewChanged
   */
  constructor(viewport, viewChanged) {
    this.viewport = viewport
    this.viewChanged = viewChanged
    this.element = byId("plot")
    this.isPinching = startPinch(this.element, (step) => this.#onPinch(step))
    this.element.addEventListener("pointermove", (event) => this.#onMove(event))
    this.element.addEventListener("pointerleave", () => this.#onLeave())
    this.element.addEventListener("pointerdown", (event) => this.#onDown(event))
    this.element.addEventListener("pointerup", (event) => this.#onUp(event))
    this.element.addEventListener("pointercancel", () => this.#cancelDrag())
    this.element.addEventListener("dblclick", (event) => this.#onDoubleClick(event))
    this.element.addEventListener("wheel", (event) => this.#onWheel(event), {passive: false})
    document.addEventListener("keydown", (event) => this.#onEscape(event), true)
    subscribe("network_layout", () => this.#onLayout())
    for (const part of /** @type {const} */ (["selection", "numbers"])) subscribe(part, () => this.#refreshTooltip())
  }

  /**
   * @param {MouseEvent} event
   * @returns {[number, number]} px within the view
   */
  #position(event) {
    const {left, top} = this.element.getBoundingClientRect()
    return [event.clientX - left, event.clientY - top]
  }

  /** @param {MouseEvent} event */
  #nodeUnder(event) {
    return nodeAt(networkNodes(), this.viewport.transform, ...this.#position(event))
  }

  /**
   * @param {number} node -1: none
   * @param {PointerEvent} [event]
   */
  #hover(node, event) {
    if (node !== nodeSelection().hovered) previewCoupling(node)
    changeNodeSelection({hovered: node})
    this.element.dataset.over = node >= 0 ? "node" : ""
    if (node < 0 || event == null) hideTooltip("network")
    else showTooltip("network", event, describeNode(node), "right")
  }

  /** What was under the pointer may have moved away: hide it, and describe what a resting pointer is on then. */
  #onLayout() {
    this.#hover(-1)
    clearTimeout(this.#settling)
    this.#settling = setTimeout(() => {
      if (this.#last != null && this.#drag == null) this.#onMove(this.#last)
    }, SETTLE_MS)
  }

  #onLeave() {
    this.#last = null
    this.#hover(-1)
  }

  /** The numbers are those of the newest batch, and what is coupled arrives later. */
  #refreshTooltip() {
    refreshTooltip("network", () => describeNode(nodeSelection().hovered))
  }

  /** @param {PointerEvent} event */
  #onDown(event) {
    if (this.isPinching()) this.#cancelDrag() // of the first finger
    if (this.isPinching() || event.button !== 0 || isOn(event, "button, [role=button]")) return
    const {left, top, showsAll} = this.viewport, extend = extendsSelection(event)
    const isBox = extend || showsAll && event.pointerType !== "touch"
    this.#drag = {from: this.#position(event), left, top, isBox, extend, hasMoved: false}
  }

  /** @param {PointerEvent} event */
  #onMove(event) {
    if (this.isPinching()) return
    this.#last = event
    const drag = this.#drag
    if (drag == null) {
      this.#hover(isOn(event, "button, .column") ? -1 : this.#nodeUnder(event), event)
      return
    }
    const [x, y] = this.#position(event), dx = x - drag.from[0], dy = y - drag.from[1]
    if (!drag.hasMoved && Math.hypot(dx, dy) < DRAG_PX) return
    if (!drag.hasMoved) this.element.setPointerCapture(event.pointerId)
    drag.hasMoved = true
    this.#hover(-1)
    if (drag.isBox) this.#drawBox(boxBetween(drag.from, [x, y]))
    else this.#pan(drag, dx, dy)
  }

  /**
   * @param {Drag} drag
   * @param {number} dx px
   * @param {number} dy
   */
  #pan({left, top}, dx, dy) {
    this.element.dataset.drag = String(!this.viewport.showsAll)
    const {scaleX, scaleY} = this.viewport.transform
    this.viewport.show(left - dx / scaleX, top - dy / scaleY)
    this.viewChanged()
  }

  /**
   * Draw the box, and mark the nodes that it would select.
   * @param {Box} box
   */
  #drawBox(box) {
    this.#boxed = filtersInBox(networkNodes(), this.viewport.transform, box)
    changeNodeSelection({also: this.#boxed?.nodes ?? []})
    const {style} = byId("node-box")
    style.transform = `translate(${box.left}px, ${box.top}px)`
    style.width = `${box.right - box.left}px`
    style.height = `${box.bottom - box.top}px`
    byId("node-box").hidden = false
  }

  /** @param {PointerEvent} event */
  #onUp(event) {
    const drag = this.#drag, boxed = this.#boxed
    this.#endDrag()
    if (drag == null || event.button !== 0) return
    if (!drag.hasMoved) this.#onClick(event, drag.extend)
    else if (boxed != null) selectSeveral(boxed.layer, boxed.filters, drag.extend ? "add" : "set")
  }

  #endDrag() {
    this.#drag = this.#boxed = null
    this.element.dataset.drag = "false"
    byId("node-box").hidden = true
  }

  #cancelDrag() {
    if (this.#drag?.isBox) changeNodeSelection({also: latest("selection")?.also ?? []})
    this.#endDrag()
  }

  /**
   * Escape cancels a drag; otherwise the keys of the page receive it.
   * @param {KeyboardEvent} event
   */
  #onEscape(event) {
    if (event.key !== "Escape" || !this.#drag?.hasMoved) return
    this.#cancelDrag()
    event.stopImmediatePropagation()
  }

  /**
   * @param {PointerEvent} event
   * @param {boolean} extend whether to add the node to the selection, or release it
   */
  #onClick(event, extend) {
    this.element.focus({preventScroll: true})
    const node = this.#nodeUnder(event)
    if (node < 0) return
    const {layer, first, last} = filtersOfNode(node)
    if (extend) {
      selectSeveral(layer, filterRange(first, last), "toggle")
      return
    }
    changeNodeSelection({selected: node, also: []}) // shown immediately; the server's reply confirms it
    sendCommand("select_largest_gradient_filter", {layer, first, last})
  }

  /** @param {MouseEvent} event */
  #onDoubleClick(event) {
    const node = this.#nodeUnder(event)
    const block = node < 0 ? blockAt(this.viewport.toLayout(...this.#position(event))) : undefined
    if (node >= 0) sendCommand("toggle_layer_expanded", {layer: filtersOfNode(node).layer})
    else if (block != null) sendCommand("open_block", {name: block.path})
  }

  /** @param {PinchStep} step */
  #onPinch({x, y, dx, dy, factor}) {
    const {left, top} = this.element.getBoundingClientRect(), {scaleX, scaleY} = this.viewport.transform
    this.viewport.show(this.viewport.left - dx / scaleX, this.viewport.top - dy / scaleY)
    this.viewport.zoomAt(x - left, y - top, factor)
    this.viewChanged()
  }

  /** @param {WheelEvent} event */
  #onWheel(event) {
    if (!wheelZoomsView(event)) return
    event.preventDefault()
    this.viewport.zoomAt(...this.#position(event), Math.exp(-event.deltaY * WHEEL_SPEED))
    this.viewChanged()
  }
}

/**
 * @param {number} layer
 * @param {number[]} filters
 * @param {"set" | "add" | "toggle"} option
 */
function selectSeveral(layer, filters, option) {
  sendCommand("select_filters_by_index", {layer, filters, option})
}

/**
 * @param {Event} event
 * @param {string} selector
 */
function isOn(event, selector) {
  return event.target instanceof Element && event.target.closest(selector) != null
}
