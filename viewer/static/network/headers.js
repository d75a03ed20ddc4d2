/** What is written above the columns of the network: the headers of the layers, and the frames of blocks and stages. */

import {byId, createElement} from "../shared/dom.js"
import {latest, subscribe} from "../shared/link.js"
import {clamp} from "../shared/math.js"
import {deferDrawWhilePressed} from "../shared/press.js"
import {createBlockHeader, createInsertButton, createLayerHeader, createStageFrame} from "./header_elements.js"
import {startLayerMenu} from "./layer_menu.js"
import {markGrowthGains} from "./growth.js"
import {markVerdicts} from "./verdict_dots.js"

/** @import {BlockHeader, LayerHeader, NetworkLayoutData, StageData} from "../shared/parts.js" */
/** @import {Viewport} from "./viewport.js" */

const HEADER_HEIGHT = 44 // px
const BLOCK_HEADER_HEIGHT = 36 // px
const LANE_HEADER_HEIGHT = 18 // px
const MARGIN = 20 // px beyond the view within which a header is kept
const CROWDED_TOP = 29 // px: below the titles of the input and the output
// px between two columns, for the three buttons of a layer, and for the size of a block
const BUTTONS_ROOM = 54
const SIZE_ROOM = 44
const INSERT_ROOM = 44 // px that an insert button needs to its layer
const STAGE_BOTTOM = 8 // px
const NESTED_BOTTOM = 5 // px per frame around
// px that a stage's title needs per letter
const LETTER = 6.3
const SMALL_LETTER = 4.9

/**
 * Put the buttons of a header into the tab order, or take them out: only the selected layer's are tab stops, and the
 * arrow keys select another layer.
 * @param {HTMLElement} header
 * @param {boolean} isStop
 */
function setTabStops(header, isStop) {
  for (const button of /** @type {NodeListOf<HTMLElement>} */ (header.querySelectorAll("button, [role=button]"))) {
    button.tabIndex = isStop ? 0 : -1
  }
}

/** The selector of the header's button that has the focus; "" if none has. New headers give it back. */
function focusedButton() {
  const active = document.activeElement, header = /** @type {HTMLElement | null} */ (active?.closest("#columns > .column"))
  if (active == null || header == null) return ""
  const {layer, block} = header.dataset
  const place = layer == null ? `[data-block="${CSS.escape(block ?? "")}"]` : `[data-layer="${CSS.escape(layer)}"]`
  return `.column${place} ${active.localName}${active.className && `.${active.className}`}`
}

/**
 * The middles of everything that has a header, px of the layout.
 * @param {NetworkLayoutData} layout
 */
function unitCenters({layers = [], blocks = []}) {
  const single = layers.filter(({block}) => block < 0).map(({center}) => center)
  return [...single, ...blocks.map(({left, right}) => (left + right) / 2)]
}

export class NetworkHeaders {
  /** @type {Map<LayerHeader, HTMLElement>} of each layer that has a column of its own */
  #layers = new Map()
  /** @type {Map<BlockHeader, {header: HTMLElement, frame: HTMLElement}>} */
  #blocks = new Map()
  /** @type {HTMLElement[]} */
  #stages = []
  /** @type {Map<LayerHeader, HTMLElement>} behind each layer with room behind it */
  #inserts = new Map()
  /** @type {NetworkLayoutData | null} what the headers were built from: a newer one waits while one is pressed */
  #layout = null

  /** @param {Viewport} viewport */
  constructor(viewport) {
    this.viewport = viewport
    startLayerMenu()
    subscribe("network_layout", deferDrawWhilePressed(byId("columns"), () => this.#build()))
    subscribe("selection", () => this.#markCurrent())
    subscribe("verdicts", () => markVerdicts(this.#layers, this.#blocks))
    subscribe("growth", () => markGrowthGains(this.#layers))
  }

  #build() {
    const layout = latest("network_layout")
    if (layout == null) return
    this.#layout = layout
    const {layers = [], blocks = [], stages = [], density} = layout, focused = focusedButton()
    const shown = layers.filter(({block}) => block < 0)
    this.#layers = new Map(shown.map((layer) => [layer, createLayerHeader(layer, density)]))
    this.#blocks = new Map(blocks.map((block) => [block, {
      header: createBlockHeader(block, density), frame: createElement("div", {class: "block", "data-block": block.path}),
    }]))
    this.#stages = stages.map(createStageFrame)
    const withInsert = density === "crowded" ? [] : shown.filter((layer) => !layer.lane)
    this.#inserts = new Map(withInsert.map((layer) => [layer, createInsertButton(layer)]))
    const drawn = [...this.#blocks.values()]
    byId("columns").replaceChildren(...this.#stages, ...drawn.map(({frame}) => frame), ...this.#layers.values(),
      ...drawn.map(({header}) => header), ...this.#inserts.values())
    byId("layer-names").replaceChildren(...layers.map((layer) => createElement("option", {value: layer.name})))
    this.place()
    this.#markCurrent()
    markVerdicts(this.#layers, this.#blocks)
    markGrowthGains(this.#layers)
    if (focused !== "") /** @type {HTMLElement | null} */ (byId("columns").querySelector(focused))?.focus()
  }

  /** Put headers and frames where their columns are in view. */
  place() {
    const layout = this.#layout
    if (layout == null) return
    const room = this.#room(layout)
    for (const [layer, element] of this.#layers) {
      element.dataset.tight = String(room(layer.center) < BUTTONS_ROOM)
      this.#placeHeader(element, layer, layout)
    }
    for (const [block, {header, frame}] of this.#blocks) {
      header.dataset.tight = String(room((block.left + block.right) / 2) < SIZE_ROOM)
      this.#placeBlock(frame, block)
      this.#placeHeader(header, {...block, center: (block.left + block.right) / 2}, layout, BLOCK_HEADER_HEIGHT)
    }
    this.#stages.forEach((element, i) => this.#placeStage(element, layout.stages[i]))
    for (const [layer, element] of this.#inserts) this.#placeInsert(element, layer, layout)
  }

  /**
   * Return how far it is from a column to the nearest other one on the screen, px.
   * @param {NetworkLayoutData} layout
   */
  #room(layout) {
    const centers = [...new Set(unitCenters(layout))].map((x) => this.viewport.toScreen(x, 0)[0])
    return (/** @type {number} */ center) => {
      const [x] = this.viewport.toScreen(center, 0)
      return Math.min(...centers.map((other) => Math.abs(other - x)).filter((distance) => distance > 1))
    }
  }

  /**
   * Put the button halfway to the next column, or as far behind the last one.
   * @param {HTMLElement} element
   * @param {LayerHeader} layer
   * @param {NetworkLayoutData} layout
   */
  #placeInsert(element, layer, layout) {
    const next = Math.min(...unitCenters(layout).filter((center) => center > layer.center + 1), layout.columns_right)
    const [x] = this.viewport.toScreen((layer.center + next) / 2, 0)
    const [from] = this.viewport.toScreen(layer.center, 0)
    element.hidden = x - from < INSERT_ROOM || x > this.viewport.width - MARGIN
    element.style.transform = `translate(-50%, 0) translate(${x.toFixed(1)}px, ${layer.header_y ?? 2}px)`
  }

  /**
   * @param {HTMLElement} element
   * @param {BlockHeader} block
   */
  #placeBlock(element, block) {
    const [left, top] = this.viewport.toScreen(block.left, block.top)
    const [right, bottom] = this.viewport.toScreen(block.right, block.bottom)
    element.style.transform = `translate(${left.toFixed(1)}px, ${top.toFixed(1)}px)`
    element.style.width = `${(right - left).toFixed(1)}px`
    element.style.height = `${(bottom - top).toFixed(1)}px`
  }

  /**
   * @param {HTMLElement} element
   * @param {{center: number, top: number, lane: boolean, header_y: number | null}} column
   * @param {NetworkLayoutData} layout
   * @param {number} height px
   */
  #placeHeader(element, column, {stages, stage_top: stageTop}, height = HEADER_HEIGHT) {
    const {width} = this.viewport
    const [center, top] = this.viewport.toScreen(column.center, column.top)
    const above = Math.max(stages.length > 0 ? stageTop + 3 : CROWDED_TOP, top - height)
    const y = column.lane ? top - LANE_HEADER_HEIGHT : column.header_y ?? above
    element.hidden = center < -MARGIN || center > width + MARGIN
    const half = element.offsetWidth / 2 + 3 // while in view, it is not cut off at the sides
    const x = element.hidden ? center : clamp(center, half, width - half)
    element.style.transform = `translate(-50%, 0) translate(${x.toFixed(1)}px, ${y.toFixed(1)}px)`
  }

  /**
   * @param {HTMLElement} element
   * @param {StageData} stage
   */
  #placeStage(element, stage) {
    const {top} = stage
    const [left] = this.viewport.toScreen(stage.left, 0)
    const [right] = this.viewport.toScreen(stage.right, 0)
    element.style.transform = `translate(${left.toFixed(1)}px, ${top}px)`
    element.style.width = `${(right - left).toFixed(1)}px`
    element.style.height = `${this.viewport.height - top - STAGE_BOTTOM - NESTED_BOTTOM * stage.level}px`
    const title = /** @type {HTMLElement} */ (element.firstChild)
    const room = (right - left + 4) / stage.name.length // a title may extend beyond its frame a little
    title.hidden = room < SMALL_LETTER
    title.dataset.small = String(room < LETTER)
  }

  #markCurrent() {
    const current = latest("selection")?.layer
    const {layers: headers = [], stages = []} = this.#layout ?? {}
    const center = headers.find(({index}) => index === current)?.center ?? NaN
    for (const [{index}, element] of this.#layers) {
      element.setAttribute("data-current", String(index === current))
      setTabStops(element, index === current)
    }
    for (const [{first, layers}, {header, frame}] of this.#blocks) {
      const isCurrent = current != null && first <= current && current < first + layers
      for (const element of [header, frame]) element.setAttribute("data-current", String(isCurrent))
      setTabStops(header, isCurrent)
    }
    this.#stages.forEach((element, i) => setTabStops(element, stages[i].left <= center && center <= stages[i].right))
  }
}
