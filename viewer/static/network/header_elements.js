/** The elements above the columns of the network: the header of a layer or a closed block, and the frame of a stage. */

import {actAsButton, createElement} from "../shared/dom.js"
import {countOf} from "../shared/format.js"
import {sendCommand} from "../shared/link.js"
import {openBlockMenu, openInsertMenu, openLayerMenu, openStageMenu} from "./layer_menu.js"

/** @import {BlockHeader, LayerHeader, NetworkLayoutData, StageData} from "../shared/parts.js" */

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
      if (!layer.refused) sendCommand(isLess ? "stage_remove_least_active_filter" : "stage_add", {layer: layer.index})
    },
  }, isLess ? "−" : "+")
}

/** @param {LayerHeader} layer */
function menuButton(layer) {
  const title = `Layer ${layer.name}: insert, remove, freeze, learning rate (O)`
  return createElement("button", {
    class: "menu", title, "aria-label": title, "aria-haspopup": "dialog",
    onclick: (/** @type {MouseEvent & {currentTarget: Element}} */ event) => openLayerMenu(layer, event.currentTarget),
  }, "⋯")
}

/** @param {LayerHeader} layer */
export function createInsertButton(layer) {
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
  if (density === "roomy" && !layer.lane) return [countOf(layer.filters, "filter"), layer.kernel].filter(Boolean).join(" · ")
  // Beside a narrow branch there is room for the whole name, which is shown only on hover, or while it is selected.
  return layer.lane && density === "normal" ? layer.name : layer.label
}

/**
 * @param {LayerHeader} layer
 * @param {NetworkLayoutData["density"]} density
 */
export function createLayerHeader(layer, density) {
  const rate = layer.rate_factor === 1 ? "" : ` · ${layer.rate_factor} × the learning rate`
  const title = createElement("b", {
    title: `${layer.name} · ${countOf(layer.filters, "filter")}${rate} · double-click to expand or collapse`,
    onclick: () => sendCommand("select_largest_gradient_filter", {layer: layer.index, first: -1, last: -1}),
    ondblclick: () => sendCommand("toggle_layer_expanded", {layer: layer.index}),
    oncontextmenu: (/** @type {MouseEvent & {currentTarget: Element}} */ event) => {
      event.preventDefault()
      openLayerMenu(layer, event.currentTarget)
    },
  }, density === "roomy" && !layer.lane ? layer.label : String(layer.filters))
  actAsButton(title, `${layer.name}, ${countOf(layer.filters, "filter")}`)
  const attributes = {class: "column", "data-layer": layer.name, "data-density": density, "data-lane": String(layer.lane)}
  return createElement("div", attributes, title, createElement("span", {}, subtitle(layer, density)),
    createElement("div", {class: "steer"}, editButton(layer, "less"), editButton(layer, "more"), menuButton(layer)))
}

/**
 * The header of a closed block; its frame is an element of its own.
 * @param {BlockHeader} block
 * @param {NetworkLayoutData["density"]} density
 */
export function createBlockHeader(block, density) {
  const layers = countOf(block.layers, "layer"), filters = countOf(block.filters, "filter")
  const size = `${layers}, ${filters}`
  const open = () => sendCommand("open_block", {name: block.path})
  const title = createElement("button", {
    class: "fold", "aria-expanded": "false", "aria-label": `Open block ${block.path}: ${size}`, title: `Open ${block.path}: ${size}`,
    onclick: open,
    oncontextmenu: (/** @type {MouseEvent & {currentTarget: Element}} */ event) => {
      event.preventDefault()
      openBlockMenu(block, event.currentTarget)
    },
  }, block.label)
  const small = density === "roomy" && !block.lane ? `${layers} · ${filters}` : layers
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
export function createStageFrame(stage) {
  const title = createElement("b", {
    title: `${stage.path} · double-click to expand or collapse all its layers`,
    ondblclick: () => sendCommand("toggle_stage_layers_expanded", {layer: stage.layer}),
    oncontextmenu: (/** @type {MouseEvent & {currentTarget: Element}} */ event) => {
      event.preventDefault()
      openStageMenu(stage, event.currentTarget)
    },
  }, ...stage.block ? [closeButton(stage)] : [], stage.name)
  if (!stage.block) actAsButton(title, `Block ${stage.path}: menu`, () => openStageMenu(stage, title))
  return createElement("div", {class: "stage", "data-level": String(stage.level)}, title)
}
