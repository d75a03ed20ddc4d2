/** The panel of the selected layer: its four views, its activation maps, and what can be done with its filters. */

import {announce, buttonsWith, byId, elements, onEnabledClick, markPressedButton, setButtonState} from "../shared/dom.js"
import {latest, sendCommand, subscribe} from "../shared/link.js"
import {onThemeChange} from "../shared/theme.js"
import {highlightFilter} from "../network/network_view.js"
import {drawSliceSlider, startSliceSlider} from "./depth.js"
import {startViewExport} from "./export.js"
import {onFilterSelect, onSelectionChange, receiveSelection} from "./filter_selection.js"
import {drawFindings} from "./findings.js"
import {startInputImage} from "./input_image.js"
import {MapGrid} from "./map_grid.js"
import {startThumbnailKeys} from "./thumbnail_keys.js"
import {cancelDrag, setSelectionShape, ThumbnailPointer} from "./thumbnail_pointer.js"
import {ThumbnailView} from "./thumbnail_view.js"

/** @import {LayerPanelData, ViewData, WireArray} from "../shared/parts.js" */
/** @import {SortKey} from "./map_grid.js" */

/** @typedef {"coefficients" | "gradients" | "activations" | "activation_gradients"} ViewName */

/** @type {ViewName[]} */
const VIEW_NAMES = ["coefficients", "gradients", "activations", "activation_gradients"]

/** @type {Partial<Record<ViewName | "maps", ThumbnailView>>} all views that have been shown */
export const views = {}
/** @type {MapGrid | null} */
let mapGrid = null

export function startLayerPanel() {
  for (const name of VIEW_NAMES) subscribe(`view-${name}`, (data, atlas) => drawView(name, data, atlas))
  subscribe("layer_panel", drawPanel)
  onSelectionChange(redrawViews)
  onFilterSelect(highlightSelected)
  onThemeChange(redrawViews)
  startInputImage()
  startSliceSlider()
  startViewExport(views)
  startButtons()
  startEnlarging()
  document.addEventListener("keydown", onEscape, true)
}

function redrawViews() {
  for (const view of Object.values(views)) view.draw()
}

/** @param {number[]} ids */
function highlightSelected([id]) {
  const {data, rows} = views.coefficients ?? {}, row = rows?.get(id)
  if (data?.indices != null && row != null) highlightFilter(data.layer, data.indices[row])
}

/**
 * @param {ViewName} name
 * @param {ViewData} data
 * @param {WireArray | undefined} atlas
 */
function drawView(name, data, atlas) {
  const box = /** @type {HTMLElement} */ (document.querySelector(`.view[data-view="${name}"]`))
  const status = /** @type {HTMLElement} */ (box.querySelector(".status"))
  status.textContent = status.title = data.status ?? ""
  status.dataset.busy = String(Boolean(data.busy))
  box.dataset.empty = String(!((atlas?.shape[0] ?? 0) > 0))
  const view = views[name] ??= interactive(new ThumbnailView(name, /** @type {HTMLCanvasElement} */ (box.querySelector("canvas"))))
  view.update(data, atlas)
  if (name === "activations") drawMaps(data, atlas)
}

/**
 * @param {ViewData} data
 * @param {WireArray | undefined} atlas
 */
function drawMaps(data, atlas) {
  mapGrid ??= interactive(new MapGrid("maps", /** @type {HTMLCanvasElement} */ (byId("maps"))))
  views.maps = mapGrid
  mapGrid.update(data, atlas, latest("input")?.title)
  byId("maps-status").textContent = data.revision ? "" : data.status
}

/**
 * @template {ThumbnailView} T
 * @param {T} view
 */
function interactive(view) {
  new ThumbnailPointer(view)
  startThumbnailKeys(view)
  return view
}

/** @param {LayerPanelData} data */
function drawPanel(data) {
  const panel = byId("layer-panel")
  if (panel.dataset.pane !== data.pane) {
    panel.dataset.pane = data.pane
    for (const pane of elements(".pane")) pane.hidden = pane.dataset.name !== data.pane
    requestAnimationFrame(() => {
      redrawViews()
      dispatchEvent(new Event("resize")) // so that Bokeh lays out charts that were hidden
    })
  }
  markPressedButton("pane", data.pane)
  markPressedButton("method", data.method)
  markPressedButton("slices", data.slices)
  byId("slices").hidden = !data.slices
  drawSliceSlider(data.depth)
  byId("freeze").textContent = data.freeze_label ?? "Freeze"
  for (const [id, reason] of Object.entries(data.disabled ?? {})) setButtonState(byId(id), reason, data.tooltips?.[id] ?? "")
  receiveSelection(data)
  drawFindings(data.findings, data.knows_dead_filters ?? false)
}

/* ------------------------------------------------------------------------------------- controls */

function startButtons() {
  for (const [attribute, command] of [["pane", "set_pane"], ["method", "set_projection_method"], ["slices", "set_kernel_slices"]]) {
    for (const button of buttonsWith(attribute)) {
      button.addEventListener("click", () => sendCommand(command, {option: button.dataset[attribute]}))
    }
  }
  for (const button of buttonsWith("order")) {
    const key = /** @type {SortKey} */ (button.dataset.order)
    button.addEventListener("click", () => {
      markPressedButton("order", key)
      mapGrid?.sortBy(key)
    })
  }
  for (const button of buttonsWith("shape")) {
    const shape = /** @type {"box" | "lasso"} */ (button.dataset.shape)
    button.addEventListener("click", () => {
      markPressedButton("shape", shape)
      setSelectionShape(shape)
    })
  }
  byId("recompute-layout").addEventListener("click", () => sendCommand("recompute_projections"))
  const commands = {
    freeze: "stage_freeze_or_unfreeze", merge: "toggle_staged_merge", reinitialize: "toggle_staged_reinitialization",
  }
  for (const [id, command] of Object.entries(commands)) onEnabledClick(byId(id), () => sendCommand(command))
}

function startEnlarging() {
  for (const button of elements(".view h3 button")) {
    const view = /** @type {HTMLElement} */ (button.closest(".view"))
    button.addEventListener("click", () => enlarge(view.dataset.enlarged === "true" ? null : view))
  }
}

/**
 * Have one of the four views fill the panel; null shows all four again.
 * @param {HTMLElement | null} enlarged
 */
function enlarge(enlarged) {
  for (const grid of elements(".views")) grid.dataset.enlarged = String(enlarged != null)
  for (const view of elements(".view")) {
    const isEnlarged = view === enlarged
    view.dataset.enlarged = String(isEnlarged)
    view.hidden = enlarged != null && !isEnlarged
    view.querySelector("h3 button")?.setAttribute("aria-expanded", String(isEnlarged))
  }
  announce(enlarged == null ? "All views" : `${enlarged.querySelector("h3")?.textContent} fills the panel`)
}

/**
 * Escape cancels a drag, or shows all views again; otherwise the keys of the page receive it.
 * @param {KeyboardEvent} event
 */
function onEscape(event) {
  if (event.key !== "Escape" || byId("keys").hasAttribute("open")) return
  const hasEnlarged = elements('.view[data-enlarged="true"]').length > 0
  if (cancelDrag()) event.stopImmediatePropagation()
  else if (hasEnlarged) {
    enlarge(null)
    event.stopImmediatePropagation()
  }
}
