/** Pointer and wheel over the network view: hover, select, open, pan, zoom. */

import {byId} from "../shared/dom.js"
import {sendCommand, subscribe} from "../shared/link.js"
import {changeSelection, nodeSelection} from "../shared/selection.js"
import {hideTooltip, refreshTooltip, showTooltip} from "../shared/tooltip.js"
import {nodeAt} from "./hit_test.js"
import {blockAt, filtersOf, networkNodes} from "./network_model.js"
import {describeNode, previewCoupling} from "./node_tooltip.js"

/** @import {Viewport} from "./viewport.js" */

const DRAG_PX = 4 // a press that moves less is a click
const WHEEL_SPEED = 0.0016
const SETTLE_MS = 500 // after a relayout, nodes are where they belong

/** Zooms, pans and selects; calls `viewChanged` when another part of the layout is in view. */
export class NetworkPointer {
  /** @type {{x: number, y: number, left: number, top: number} | null} where a drag began, and the view then */
  #drag = null
  #moved = false
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
    this.element.addEventListener("pointermove", (event) => this.#onMove(event))
    this.element.addEventListener("pointerleave", () => this.#onLeave())
    this.element.addEventListener("pointerdown", (event) => this.#onDown(event))
    this.element.addEventListener("pointerup", (event) => this.#onUp(event))
    this.element.addEventListener("dblclick", (event) => this.#onDoubleClick(event))
    this.element.addEventListener("wheel", (event) => this.#onWheel(event), {passive: false})
    subscribe("network_layout", () => this.#onLayout())
    subscribe("selection", () => refreshTooltip("network", () => describeNode(nodeSelection().hovered)))
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
    changeSelection({hovered: node})
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

  /** @param {PointerEvent} event */
  #onDown(event) {
    if (event.button !== 0 || isOn(event, "button")) return
    this.#drag = {x: event.clientX, y: event.clientY, left: this.viewport.left, top: this.viewport.top}
    this.#moved = false
  }

  /** @param {PointerEvent} event */
  #onMove(event) {
    this.#last = event
    if (this.#drag == null) {
      this.#hover(isOn(event, "button, .column") ? -1 : this.#nodeUnder(event), event)
      return
    }
    const dx = event.clientX - this.#drag.x
    const dy = event.clientY - this.#drag.y
    if (!this.#moved && Math.hypot(dx, dy) < DRAG_PX) return
    this.#moved = true
    this.#hover(-1)
    this.element.dataset.drag = String(!this.viewport.showsAll)
    const {scaleX, scaleY} = this.viewport.transform
    this.viewport.show(this.#drag.left - dx / scaleX, this.#drag.top - dy / scaleY)
    this.viewChanged()
  }

  /** @param {PointerEvent} event */
  #onUp(event) {
    const isClick = this.#drag != null && !this.#moved
    this.#drag = null
    this.element.dataset.drag = "false"
    if (!isClick || event.button !== 0) return
    this.element.focus({preventScroll: true})
    const node = this.#nodeUnder(event)
    if (node < 0) return
    changeSelection({selected: node, also: []}) // shown immediately; the server's reply confirms it
    sendCommand("select", filtersOf(node))
  }

  /** @param {MouseEvent} event */
  #onDoubleClick(event) {
    const node = this.#nodeUnder(event)
    const block = node < 0 ? blockAt(this.viewport.toLayout(...this.#position(event))) : undefined
    if (node >= 0) sendCommand("toggle_layer", {layer: filtersOf(node).layer})
    else if (block != null) sendCommand("open_block", {name: block.path})
  }

  /** @param {WheelEvent} event */
  #onWheel(event) {
    event.preventDefault()
    this.viewport.zoomAt(...this.#position(event), Math.exp(-event.deltaY * WHEEL_SPEED))
    this.viewChanged()
  }
}

/**
 * @param {Event} event
 * @param {string} selector
 */
function isOn(event, selector) {
  return event.target instanceof Element && event.target.closest(selector) != null
}
