/** What is written above the columns of the network: the headers of the layers, and the frames of the stages. */

import {actAsButton, byId, createElement} from "../shared/dom.js"
import {latest, sendCommand, subscribe} from "../shared/link.js"
import {clamp} from "../shared/math.js"
import {openInsertMenu, openLayerMenu, openStageMenu, startLayerMenu} from "./layer_menu.js"

/** @import {LayerHeader, NetworkLayoutData, StageData} from "../shared/parts.js" */
/** @import {Viewport} from "./viewport.js" */

const HEADER_HEIGHT = 44 // px
const LANE_HEADER_HEIGHT = 18 // px
const MARGIN = 20 // px beyond the view within which a header is kept
const INSERT_ROOM = 44 // px that an insert button needs to its layer
const STAGE_BOTTOM = 8 // px
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
  if (density === "roomy" && !layer.lane) return `${layer.filters} filters · ${layer.kernel}`
  // Beside a narrow branch there is room for the whole name, which is shown only on hover, or while it is selected.
  return layer.lane && density === "normal" ? layer.name : layer.label
}

/**
 * @param {LayerHeader} layer
 * @param {NetworkLayoutData["density"]} density
 */
function layerHeader(layer, density) {
  const title = createElement("b", {
    title: `${layer.name} · ${layer.filters} filters · double-click to open or close`,
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

/** @param {StageData} stage */
function stageFrame(stage) {
  const title = createElement("b", {
    title: `${stage.path} · double-click to open or close`,
    ondblclick: () => sendCommand("toggle_stage", {layer: stage.layer}),
    oncontextmenu: (/** @type {MouseEvent & {currentTarget: Element}} */ event) => {
      event.preventDefault()
      openStageMenu(stage, event.currentTarget)
    },
  }, stage.name)
  actAsButton(title, `Block ${stage.path}: menu`, () => openStageMenu(stage, title))
  return createElement("div", {class: "stage"}, title)
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

export class NetworkHeaders {
  /** @type {HTMLElement[]} */
  #layers = []
  /** @type {HTMLElement[]} */
  #stages = []
  /** @type {Map<LayerHeader, HTMLElement>} behind each layer with room behind it */
  #inserts = new Map()

  /** @param {Viewport} viewport */
  constructor(viewport) {
    this.viewport = viewport
    startLayerMenu()
    subscribe("network_layout", (layout) => this.#build(layout))
    subscribe("selection", () => this.#markCurrent())
  }

  /** @param {NetworkLayoutData} layout */
  #build({layers = [], stages = [], density}) {
    this.#layers = layers.map((layer) => layerHeader(layer, density))
    this.#stages = stages.map(stageFrame)
    const withInsert = density === "crowded" ? [] : layers.filter((layer) => !layer.lane)
    this.#inserts = new Map(withInsert.map((layer) => [layer, insertButton(layer)]))
    byId("columns").replaceChildren(...this.#stages, ...this.#layers, ...this.#inserts.values())
    byId("layer-names").replaceChildren(...layers.map((layer) => createElement("option", {value: layer.name})))
    this.place()
    this.#markCurrent()
  }

  /** Put headers and frames where their columns are in view. */
  place() {
    const layout = latest("network_layout")
    if (layout == null) return
    this.#layers.forEach((element, i) => this.#placeLayer(element, layout.layers[i], layout))
    this.#stages.forEach((element, i) => this.#placeStage(element, layout.stages[i], layout.stage_top))
    for (const [layer, element] of this.#inserts) this.#placeInsert(element, layer, layout)
  }

  /**
   * Put the button halfway to the next column, or as far behind the last one.
   * @param {HTMLElement} element
   * @param {LayerHeader} layer
   * @param {NetworkLayoutData} layout
   */
  #placeInsert(element, layer, {layers, width}) {
    const next = Math.min(...layers.map(({center}) => center).filter((center) => center > layer.center + 1), width)
    const [x] = this.viewport.toScreen((layer.center + next) / 2, 0)
    const [from] = this.viewport.toScreen(layer.center, 0)
    element.hidden = x - from < INSERT_ROOM || x > this.viewport.width - MARGIN
    element.style.transform = `translate(-50%, 0) translate(${x.toFixed(1)}px, ${layer.header_y ?? 2}px)`
  }

  /**
   * @param {HTMLElement} element
   * @param {LayerHeader} layer
   * @param {NetworkLayoutData} layout
   */
  #placeLayer(element, layer, {stages, stage_top: stageTop}) {
    const {width} = this.viewport
    const [center, top] = this.viewport.toScreen(layer.center, layer.top)
    const above = Math.max(stages.length > 0 ? stageTop + 3 : 2, top - HEADER_HEIGHT)
    const y = layer.lane ? top - LANE_HEADER_HEIGHT : layer.header_y ?? above
    element.hidden = center < -MARGIN || center > width + MARGIN
    const half = element.offsetWidth / 2 + 3 // while in view, it is not cut off at the sides
    const x = element.hidden ? center : clamp(center, half, width - half)
    element.style.transform = `translate(-50%, 0) translate(${x.toFixed(1)}px, ${y.toFixed(1)}px)`
  }

  /**
   * @param {HTMLElement} element
   * @param {StageData} stage
   * @param {number} top
   */
  #placeStage(element, stage, top) {
    const [left] = this.viewport.toScreen(stage.left, 0)
    const [right] = this.viewport.toScreen(stage.right, 0)
    element.style.transform = `translate(${left.toFixed(1)}px, ${top}px)`
    element.style.width = `${(right - left).toFixed(1)}px`
    element.style.height = `${this.viewport.height - top - STAGE_BOTTOM}px`
    const title = /** @type {HTMLElement} */ (element.firstChild)
    const room = (right - left + 4) / stage.name.length // a title may extend beyond its frame a little
    title.hidden = room < SMALL_LETTER
    title.dataset.small = String(room < LETTER)
  }

  #markCurrent() {
    const current = latest("selection")?.layer
    const {layers = [], stages = []} = latest("network_layout") ?? {}
    const center = layers.find(({index}) => index === current)?.center ?? NaN
    this.#layers.forEach((element, i) => {
      const isCurrent = i === current
      element.setAttribute("data-current", String(isCurrent))
      setTabStops(element, isCurrent)
    })
    this.#stages.forEach((element, i) => setTabStops(element, stages[i].left <= center && center <= stages[i].right))
  }
}
