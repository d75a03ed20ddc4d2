/** What is written above the columns of the network: the headers of the layers, and the frames of blocks and stages. */

import {actAsButton, byId, createElement} from "../shared/dom.js"
import {latest, sendCommand, subscribe} from "../shared/link.js"
import {clamp} from "../shared/math.js"
import {drawUnlessPressed} from "../shared/press.js"
import {openBlockMenu, openInsertMenu, openLayerMenu, openStageMenu, startLayerMenu} from "./layer_menu.js"
import {markVerdicts} from "./verdict_dots.js"

/** @import {BlockHeader, LayerHeader, NetworkLayoutData, StageData} from "../shared/parts.js" */
/** @import {Viewport} from "./viewport.js" */

const HEADER_HEIGHT = 44 // px
const BLOCK_HEADER_HEIGHT = 36 // px
const LANE_HEADER_HEIGHT = 18 // px
const MARGIN = 20 // px beyond the view within which a header is kept
const INSERT_ROOM = 44 // px that an insert button needs to its layer
const STAGE_BOTTOM = 8 // px
const NESTED_BOTTOM = 5 // px per frame around
// px that a stage's title needs per letter
const LETTER = 6.3
const SMALL_LETTER = 4.9

/**
 * @param {LayerHeader} layer
 * @param {"less" | "more"} kind
 */
function editButton(layer, kind) {
  const isLess = kind === "less"
  const action = isLess ? `Remove the least active filter of ${layer.name}` : `Add a filter to ${layer.name}`
  return createElement("button", {
    class: kind,
    title: layer.refused || action,
    "aria-label": layer.refused ? `${action}: not possible, ${layer.refused}` : action,
    "aria-disabled": String(Boolean(layer.refused)),
    onclick: () => {
      if (!layer.refused) sendCommand(isLess ? "stage_remove_least_active" : "stage_add", {layer: layer.index})
    },
  }, isLess ? "−" : "+")
}

/** @param {LayerHeader} layer */
function menuButton(layer) {
  const title = `Layer ${layer.name}: insert, remove, freeze (O)`
  return createElement("button", {
    class: "menu", title, "aria-label": title, "aria-haspopup": "dialog",
    onclick: (/** @type {MouseEvent & {currentTarget: Element}} */ event) => openLayerMenu(layer, event.currentTarget),
  }, "⋯")
}

/** @param {LayerHeader} layer */
function insertButton(layer) {
  return createElement("button", {
    class: "insert", title: `Insert a layer after ${layer.name}`, "aria-label": `Insert a layer after ${layer.name}`,
    "aria-haspopup": "dialog", tabindex: -1, // by keyboard: the menu of the layer, or I
    onclick: (/** @type {MouseEvent & {currentTarget: Element}} */ event) => openInsertMenu(layer, event.currentTarget),
  }, "+")
}

/**
 * @param {LayerHeader} layer
 * @param {NetworkLayoutData["density"]} density
 */
function subtitle(layer, density) {
  if (density === "roomy" && !layer.lane) return [`${layer.filters} filters`, layer.kernel].filter(Boolean).join(" · ")
  // Beside a narrow branch there is room for the whole name, which is shown only on hover, or while it is selected.
  return layer.lane && density === "normal" ? layer.name : layer.label
}

/**
 * @param {LayerHeader} layer
 * @param {NetworkLayoutData["density"]} density
 */
function layerHeader(layer, density) {
  const title = createElement("b", {
    title: `${layer.name} · ${layer.filters} filters · double-click to expand or collapse`,
    onclick: () => sendCommand("select", {layer: layer.index, first: -1, last: -1}),
    ondblclick: () => sendCommand("toggle_layer", {layer: layer.index}),
    oncontextmenu: (/** @type {MouseEvent & {currentTarget: Element}} */ event) => {
      event.preventDefault()
      openLayerMenu(layer, event.currentTarget)
    },
  }, density === "roomy" && !layer.lane ? layer.label : String(layer.filters))
  actAsButton(title, `${layer.name}, ${layer.filters} filters`)
  const attributes = {class: "column", "data-layer": layer.name, "data-density": density, "data-lane": String(layer.lane)}
  return createElement("div", attributes, title, createElement("span", {}, subtitle(layer, density)),
    createElement("div", {class: "steer"}, editButton(layer, "less"), editButton(layer, "more"), menuButton(layer)))
}

/**
 * The header of a closed block; its frame is an element of its own.
 * @param {BlockHeader} block
 * @param {NetworkLayoutData["density"]} density
 */
function blockHeader(block, density) {
  const size = `${block.layers} layers, ${block.filters} filters`
  const open = () => sendCommand("open_block", {name: block.path})
  const title = createElement("button", {
    class: "fold", "aria-expanded": "false", "aria-label": `Open block ${block.path}: ${size}`, title: `Open ${block.path}: ${size}`,
    onclick: open,
    oncontextmenu: (/** @type {MouseEvent & {currentTarget: Element}} */ event) => {
      event.preventDefault()
      openBlockMenu(block, event.currentTarget)
    },
  }, block.label)
  const small = density === "roomy" && !block.lane ? `${block.layers} layers · ${block.filters} filters` : `${block.layers} layers`
  const attributes = {class: "column block-header", "data-block": block.path, "data-density": density, "data-lane": String(block.lane)}
  return createElement("div", attributes, title, createElement("span", {}, small))
}

/** @param {StageData} stage */
function closeButton(stage) {
  const title = `Close block ${stage.block}`
  return createElement("button", {
    class: "fold", "aria-expanded": "true", "aria-label": title, title: `${title} (B)`,
    onclick: () => sendCommand("close_block", {name: stage.block}),
  })
}

/** @param {StageData} stage */
function stageFrame(stage) {
  const title = createElement("b", {
    title: `${stage.path} · double-click to expand or collapse all its layers`,
    ondblclick: () => sendCommand("toggle_stage", {layer: stage.layer}),
    oncontextmenu: (/** @type {MouseEvent & {currentTarget: Element}} */ event) => {
      event.preventDefault()
      openStageMenu(stage, event.currentTarget)
    },
  }, ...stage.block ? [closeButton(stage)] : [], stage.name)
  if (!stage.block) actAsButton(title, `Block ${stage.path}: menu`, () => openStageMenu(stage, title))
  return createElement("div", {class: "stage", "data-level": String(stage.level)}, title)
}

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
    subscribe("network_layout", drawUnlessPressed(byId("columns"), () => this.#build()))
    subscribe("selection", () => this.#markCurrent())
    subscribe("verdicts", () => markVerdicts(this.#layers, this.#blocks))
  }

  #build() {
    const layout = latest("network_layout")
    if (layout == null) return
    this.#layout = layout
    const {layers = [], blocks = [], stages = [], density} = layout, focused = focusedButton()
    const shown = layers.filter(({block}) => block < 0)
    this.#layers = new Map(shown.map((layer) => [layer, layerHeader(layer, density)]))
    this.#blocks = new Map(blocks.map((block) => [block, {
      header: blockHeader(block, density), frame: createElement("div", {class: "block", "data-block": block.path}),
    }]))
    this.#stages = stages.map(stageFrame)
    const withInsert = density === "crowded" ? [] : shown.filter((layer) => !layer.lane)
    this.#inserts = new Map(withInsert.map((layer) => [layer, insertButton(layer)]))
    const drawn = [...this.#blocks.values()]
    byId("columns").replaceChildren(...this.#stages, ...drawn.map(({frame}) => frame), ...this.#layers.values(),
      ...drawn.map(({header}) => header), ...this.#inserts.values())
    byId("layer-names").replaceChildren(...layers.map((layer) => createElement("option", {value: layer.name})))
    this.place()
    this.#markCurrent()
    markVerdicts(this.#layers, this.#blocks)
    if (focused !== "") /** @type {HTMLElement | null} */ (byId("columns").querySelector(focused))?.focus()
  }

  /** Put headers and frames where their columns are in view. */
  place() {
    const layout = this.#layout
    if (layout == null) return
    for (const [layer, element] of this.#layers) this.#placeHeader(element, layer, layout)
    for (const [block, {header, frame}] of this.#blocks) {
      this.#placeBlock(frame, block)
      this.#placeHeader(header, {...block, center: (block.left + block.right) / 2}, layout, BLOCK_HEADER_HEIGHT)
    }
    this.#stages.forEach((element, i) => this.#placeStage(element, layout.stages[i]))
    for (const [layer, element] of this.#inserts) this.#placeInsert(element, layer, layout)
  }

  /**
   * Put the button halfway to the next column, or as far behind the last one.
   * @param {HTMLElement} element
   * @param {LayerHeader} layer
   * @param {NetworkLayoutData} layout
   */
  #placeInsert(element, layer, {layers, blocks, columns_right: end}) {
    const centers = [...layers.filter(({block}) => block < 0).map(({center}) => center), ...blocks.map(({left, right}) => (left + right) / 2)]
    const next = Math.min(...centers.filter((center) => center > layer.center + 1), end)
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
    const above = Math.max(stages.length > 0 ? stageTop + 3 : 2, top - height)
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
