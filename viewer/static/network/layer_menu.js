/** The menus of a layer, of a stage, and of the gap behind a layer. */

import {formatKey} from "../controls/key_table.js"
import {byId, createElement, onEnabledClick, setButtonState} from "../shared/dom.js"
import {latest, sendCommand} from "../shared/link.js"
import {showNotice} from "../shared/notice.js"
import {placePopover} from "../shared/popover.js"

/** @import {BlockHeader, LayerHeader, StageData} from "../shared/parts.js" */

const MAX_ADDED = 4096 // filters in one request
const MIN_FACTOR = 1e-6, MAX_FACTOR = 100 // of a learning rate

/** Why the page cannot steer the run now; "" if it can. */
const steeringRefusal = () => latest("header")?.steering_refusal ?? ""

/** @returns {HTMLElement} */
const menu = () => byId("layer-menu")

/** Close the menu with Escape, move between its items with the arrow keys, and choose one with the key that it shows. */
export function startLayerMenu() {
  menu().addEventListener("keydown", (event) => {
    event.stopPropagation() // the keys of the page act on the selected layer, which may be another one
    const items = /** @type {HTMLElement[]} */ ([...menu().querySelectorAll(".item")])
    const chosen = items.find((one) => one.querySelector("kbd")?.textContent === formatKey(event))
    if (chosen != null && event.key !== "Enter" && !(event.target instanceof HTMLInputElement)) {
      event.preventDefault()
      chosen.click()
      return
    }
    const step = {ArrowDown: 1, ArrowUp: -1}[event.key]
    if (event.key === "Escape") menu().hidePopover()
    if (step == null) return
    event.preventDefault()
    const place = items.indexOf(/** @type {HTMLElement} */ (document.activeElement))
    items.at((place + step) % items.length)?.focus()
  })
}

/**
 * Show what can be done with a layer.
 * @param {LayerHeader} layer
 * @param {Element} anchor
 */
export function openLayerMenu(layer, anchor) {
  open(anchor, layer.name,
    item("Expand or collapse", "Enter", () => sendCommand("toggle_layer_expanded", {layer: layer.index})),
    addRow(layer),
    steeringItem(layer.frozen ? "Unfreeze the layer" : "Freeze the layer", "⇧ F", "stage_layer_freeze_or_unfreeze", {layer: layer.index}),
    rateRow(layer),
    ...insertItems(layer, " after it"),
    steeringItem("Remove the layer", "⇧ D", "stage_remove_layer", {layer: layer.index}, "danger"))
}

/**
 * Show what can be inserted behind a layer.
 * @param {LayerHeader} layer
 * @param {Element} anchor
 */
export function openInsertMenu(layer, anchor) {
  open(anchor, `After ${layer.name}`, ...insertItems(layer, ""),
    createElement("p", {class: "faint"}, "The output stays unchanged. The plan shows the cost before you apply it."))
}

/**
 * Show what can be done with a stage.
 * @param {StageData} stage
 * @param {Element} anchor
 */
export function openStageMenu(stage, anchor) {
  open(anchor, stage.path,
    item("Expand or collapse", "⇧ Enter", () => sendCommand("toggle_stage_layers_expanded", {layer: stage.layer})),
    ...stage.block ? [item("Close the block", "B", () => sendCommand("close_block", {name: stage.block}))] : [],
    ...removalItems(stage))
}

/**
 * Show what can be done with a closed block.
 * @param {BlockHeader} block
 * @param {Element} anchor
 */
export function openBlockMenu(block, anchor) {
  open(anchor, block.path,
    item("Open the block", "Enter", () => sendCommand("open_block", {name: block.path})),
    ...removalItems(block))
}

/** @param {{path: string, is_module: boolean}} block */
function removalItems(block) {
  if (!block.is_module) return []
  return [steeringItem("Remove the block", "", "stage_remove_layer", {name: block.path}, "danger")]
}

/** Show the menu of the selected layer, for the keyboard. */
export function openSelectedLayerMenu() {
  const current = latest("selection")?.layer
  const layer = latest("network_layout")?.layers?.find(({index}) => index === current)
  const header = document.querySelector(".column[data-current=true]")
  if (layer != null && header != null) openLayerMenu(layer, header)
  else showNotice("No layer is selected")
}

/** Show the menu of the stage that the selected layer is in, for the keyboard. */
export function openSelectedStageMenu() {
  const {layers = [], stages = []} = latest("network_layout") ?? {}
  const layer = layers.find(({index}) => index === latest("selection")?.layer)
  const place = stages.findLastIndex(({left, right}) => layer != null && left <= layer.center && layer.center <= right)
  const title = document.querySelectorAll(".stage > b")[place]
  if (title != null) openStageMenu(stages[place], title)
  else showNotice("The selected layer is in no open block")
}

/**
 * @param {LayerHeader} layer
 * @param {string} where
 */
function insertItems({index}, where) {
  return [
    steeringItem(`Insert a residual block${where}`, "I", "stage_insert_layer", {layer: index, option: "residual"}),
    steeringItem(`Insert a convolution${where}`, "⇧ I", "stage_insert_layer", {layer: index, option: "dirac"}),
  ]
}

/**
 * @param {string} text
 * @param {string} keys
 * @param {() => void} action
 * @param {string} [kind]
 * @param {string} [refusal] why it is disabled
 */
function item(text, keys, action, kind = "", refusal = "") {
  const element = createElement("button", {class: `item ${kind}`}, text, keys && createElement("kbd", {}, keys))
  setButtonState(element, refusal, "")
  onEnabledClick(element, () => {
    menu().hidePopover()
    action()
  })
  return element
}

/**
 * Return an item that stages a change.
 * @param {string} text
 * @param {string} keys
 * @param {string} command
 * @param {Record<string, unknown>} args
 * @param {string} [kind]
 */
function steeringItem(text, keys, command, args, kind) {
  return item(text, keys, () => sendCommand(command, args), kind, steeringRefusal())
}

/** @param {LayerHeader} layer */
function addRow(layer) {
  const attributes = {min: 1, max: MAX_ADDED, value: 4, "aria-label": "Number of filters to add"}
  const add = (/** @type {number} */ count) => sendCommand("stage_add", {layer: layer.index, count})
  return inputRow("Add filters", layer.refused || steeringRefusal(), attributes, add)
}

/** @param {LayerHeader} layer */
function rateRow(layer) {
  const attributes = {
    min: MIN_FACTOR, max: MAX_FACTOR, step: "any", value: layer.rate_factor, "aria-label": "Factor of the learning rate; 1 is the full rate",
  }
  const stage = (/** @type {number} */ value) => sendCommand("stage_layer_rate", {layer: layer.index, value})
  return inputRow("Learning rate ×", steeringRefusal(), attributes, stage)
}

/**
 * Return an item that stages a change with a number.
 * @param {string} text
 * @param {string} refused why it is disabled
 * @param {Record<string, unknown>} attributes of the input
 * @param {(value: number) => void} stage
 */
function inputRow(text, refused, attributes, stage) {
  const input = createElement("input", {type: "number", disabled: refused !== "", ...attributes})
  const confirm = () => {
    if (refused !== "" || !input.reportValidity()) return
    menu().hidePopover()
    stage(input.valueAsNumber)
  }
  input.addEventListener("keydown", ({key}) => {
    if (key === "Enter") confirm()
  })
  return createElement("div", {class: "add"},
    createElement("button", {
      class: "item", onclick: confirm, title: refused, "aria-disabled": String(refused !== ""),
    }, text), input)
}

/**
 * @param {Element} anchor
 * @param {string} title
 * @param {...HTMLElement} content
 */
function open(anchor, title, ...content) {
  const element = menu()
  element.replaceChildren(createElement("b", {}, title), ...content)
  element.setAttribute("aria-label", title)
  element.showPopover()
  placePopover(element, anchor)
  const first = /** @type {HTMLElement | null} */ (element.querySelector(".item"))
  first?.focus()
}
