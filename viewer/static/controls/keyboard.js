/** The page's keys: what a pressed key does, and the sheet that lists them. */

import {setPrimaryToMean} from "../layer/filter_selection.js"
import {openSelectedLayerMenu, openSelectedStageMenu} from "../network/layer_menu.js"
import {showWholeNetwork, zoomBy} from "../network/network_view.js"
import {byId, createElement} from "../shared/dom.js"
import {sendCommand} from "../shared/link.js"
import {motionLevel, setMotion} from "../shared/motion.js"
import {showNotice} from "../shared/notice.js"
import {makeScrollableByKey} from "../shared/scrolling.js"
import {toggleLayerTable} from "../table/layer_table.js"
import {findBinding, keyOfCombination, keyTable} from "./key_table.js"
import {clickRunControl, controlRun, togglePause} from "./run_controls.js"
import {stepMoment} from "./timeline.js"

/** @import {KeyBinding} from "./key_table.js" */

const NOTHING_STAGED = "Nothing is staged. Select a filter and press Delete, or use − and + below the name of a layer."
const BRACKETS = ["[", "]"]
const TEXT_TYPES = ["text", "search", "number"] // of inputs; others need no letters

const TABLE = keyTable({
  send: sendCommand,
  click: (id) => byId(id).click(), // a disabled button says why
  zoomBy,
  showWholeNetwork,
  toggleLayerTable,
  focusSearch: () => byId("search").focus(),
  applyStaged,
  togglePause,
  controlRun,
  clickRunControl,
  stepMoment,
  changeMotion: (change) => setMotion(motionLevel() + change),
  setToMean: setPrimaryToMean,
  openLayerMenu: openSelectedLayerMenu,
  openStageMenu: openSelectedStageMenu,
  showKeys,
})

/** @returns {HTMLDialogElement} */
const sheet = () => byId("keys")

export function startKeyboard() {
  document.addEventListener("keydown", onKey)
  byId("help").addEventListener("click", showKeys)
  sheet().addEventListener("click", (event) => {
    if (event.target === sheet()) sheet().close() // a click on the backdrop
  })
}

/** @param {KeyboardEvent} event */
function onKey(event) {
  const focused = event.target instanceof Element ? event.target : null // before anything has moved the focus
  // Where a layout types brackets with AltGr or Option, these modifiers are part of the key.
  const isTyped = event.getModifierState("AltGraph") || event.altKey && BRACKETS.includes(event.key)
  const isCombination = !isTyped && (event.ctrlKey || event.metaKey), key = isCombination ? keyOfCombination(event) : event.key
  if (!key || event.altKey && !isTyped || sheet().open) return
  if (isTextField(focused)) {
    if (key === "Escape" && focused.closest("#rates-panel") != null) closeRates()
    else if (key === "Escape" && focused.closest(":popover-open") == null) focused.blur() // the browser closes a popover
    return
  }
  const binding = findBinding(TABLE, key)
  if (binding?.run == null || binding.isFree && !isFree(focused)) return
  event.preventDefault() // of Escape, too: the browser would not close a popover itself
  const popover = key === "Escape" ? document.querySelector(":popover-open:not(#notice)") : null
  if (popover != null) /** @type {HTMLElement} */ (popover).hidePopover()
  else if (key === "Escape" && !byId("rates-panel").hidden) closeRates()
  else binding.run(event)
}

function closeRates() {
  byId("rates").click()
  byId("rates").focus()
}

/**
 * @param {Element | null} element
 * @returns {element is HTMLElement}
 */
function isTextField(element) {
  if (element instanceof HTMLInputElement) return TEXT_TYPES.includes(element.type)
  return element instanceof HTMLSelectElement || element instanceof HTMLTextAreaElement
}

/**
 * Whether the focus is where the page's keys are not needed: nowhere, in the network, or in a view of thumbnails, which
 * handles its own keys itself.
 * @param {Element | null} focused
 */
function isFree(focused) {
  if (focused == null || focused === document.body || focused === byId("plot")) return true
  return focused instanceof HTMLCanvasElement && focused.closest("[popover]") == null
}

function applyStaged() {
  const button = /** @type {HTMLElement | null} */ (document.querySelector("#staging button.apply"))
  if (button == null) showNotice(NOTHING_STAGED)
  else button.click() // a disabled button says why
}

/** Show the key sheet. Escape closes it, like every dialog. */
function showKeys() {
  const groups = Object.entries(TABLE).map(([title, bindings]) => createElement("section", {},
    createElement("h3", {}, title), createElement("dl", {}, ...bindings.flatMap(sheetEntry))))
  const list = createElement("div", {class: "list", role: "region", "aria-label": "All keys"},
    createElement("div", {class: "groups"}, ...groups))
  sheet().replaceChildren(createElement("h2", {}, "Keys"), list)
  makeScrollableByKey(list)
  sheet().showModal()
}

/** @param {KeyBinding} binding */
function sheetEntry({label, description}) {
  if (label == null) return []
  const keys = label.split(" ").flatMap((key) => [createElement("kbd", {}, key), " "])
  return [createElement("dt", {}, ...keys), createElement("dd", {}, description)]
}
