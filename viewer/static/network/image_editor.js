/** The panel in which a person opens a picture of their own, or erases and paints tiles of the shown image. */

import {context2d, paintAtlas, tileBox} from "../layer/tile_atlas.js"
import {announce, buttonsWith, byId, markPressedButton} from "../shared/dom.js"
import {latest, sendCommand, subscribe} from "../shared/link.js"
import {clamp} from "../shared/math.js"
import {showNotice} from "../shared/notice.js"
import {placePopover} from "../shared/popover.js"
import {parseHexColor, PaintedTiles, tilesBetween} from "./painted_tiles.js"
import {firstImageFile, sendPicture} from "./picture_file.js"

/** @import {TileAtlas} from "../layer/tile_atlas.js" */
/** @import {EndsData, WireArray} from "../shared/parts.js" */
/** @import {Color, Tile} from "./painted_tiles.js" */

const NO_PICTURES = "The input of this network is no image, so no picture can be shown to it"
const SEND_MS = 200 // between two changes, while the pointer paints
const ERASED = "rgb(128 128 128 / 80%)"
/** @type {Record<string, [rows: number, columns: number]>} */
const STEPS = {ArrowUp: [-1, 0], ArrowDown: [1, 0], ArrowLeft: [0, -1], ArrowRight: [0, 1]}

const tiles = new PaintedTiles()
/** @type {EndsData["input"] | null} */
let input = null
/** @type {TileAtlas | null} */
let picture = null // its first tile; behind it is the image that the network generates, if any
/** @type {Tile} */
let cursor = {row: 0, column: 0}
/** @type {Tile | null} */
let last = null // under the pointer that paints
let origin = ""
let brush = "erase"
let failure = "" // of the last file
let isPending = false // whether the picture does not show yet what is painted
/** @type {number | undefined} */
let timer

/** @returns {HTMLCanvasElement} */
const canvas = () => byId("editor-image")
/** @returns {HTMLInputElement} */
const colorField = () => byId("editor-color")
/** @returns {HTMLInputElement} */
const fileField = () => byId("editor-file")
const editor = () => byId("image-editor")

export function startImageEditor() {
  subscribe("ends", receive)
  byId("edit-input").addEventListener("click", open)
  byId("network-input-picture").addEventListener("click", () => byId("edit-input").click())
  for (const button of buttonsWith("brush")) button.addEventListener("click", () => setBrush(button.dataset.brush ?? ""))
  for (const button of buttonsWith("image")) button.addEventListener("click", clear)
  colorField().addEventListener("input", () => setBrush("paint"))
  byId("editor-restore").addEventListener("click", restore)
  fileField().addEventListener("change", () => {
    const [file] = fileField().files ?? []
    if (file != null) void show(file)
    fileField().value = "" // the same file can be picked again
  })
  startPainting(canvas())
  startDropAndPaste()
}

function startDropAndPaste() {
  document.addEventListener("dragover", (event) => {
    if (event.dataTransfer?.types.includes("Files")) event.preventDefault()
  })
  document.addEventListener("drop", (event) => {
    if (!event.dataTransfer?.types.includes("Files")) return
    event.preventDefault() // the browser would open the file
    const file = firstImageFile(event.dataTransfer)
    if (file != null) void show(file)
  })
  document.addEventListener("paste", (event) => {
    const file = firstImageFile(event.clipboardData)
    if (file != null) void show(file)
  })
}

/** @param {HTMLCanvasElement} view */
function startPainting(view) {
  view.addEventListener("pointerdown", (event) => {
    if (event.button !== 0) return
    view.setPointerCapture(event.pointerId)
    last = tileAt(event)
    paint([last])
  })
  view.addEventListener("pointermove", (event) => {
    if (last == null) return
    const tile = tileAt(event)
    paint(tilesBetween(last, tile))
    last = tile
  })
  for (const name of ["pointerup", "pointercancel"]) view.addEventListener(name, () => { last = null })
  view.addEventListener("keydown", onKey)
  for (const name of ["focus", "blur"]) view.addEventListener(name, draw)
}

/**
 * @param {EndsData} data
 * @param {WireArray | undefined} atlas
 */
function receive(data, atlas) {
  input = data.input ?? null
  picture = input == null ? null : paintAtlas(atlas, "gray")
  isPending &&= timer != null || input?.paint.is_waiting === true
  const [rows, columns] = input?.grid ?? [0, 0], current = input?.paint.origin ?? ""
  if (current !== origin || rows !== tiles.rows || columns !== tiles.columns) tiles.reset(rows, columns)
  if (input?.paint.refused) tiles.reset(rows, columns)
  origin = current
  byId("edit-input").hidden = rows === 0
  if (editor().matches(":popover-open")) describe()
}

function open() {
  if (byId("edit-input").hidden) return
  failure = ""
  cursor = {row: 0, column: 0}
  describe()
  editor().showPopover()
  canvas().focus() // it is at the end of the tab order
  placePopover(editor(), byId("network-input-picture"))
}

/** Say what is shown, and draw it. */
function describe() {
  byId("editor-note").textContent = capitalized(input?.image_note ?? "")
  byId("editor-status").textContent = failure || capitalized(input?.paint.refused ?? "")
  byId("editor-restore").hidden = tiles.isEmpty && !input?.paint.is_painted
  draw()
}

/** @param {string} text */
const capitalized = (text) => text.charAt(0).toUpperCase() + text.slice(1)

function draw() {
  const view = canvas(), ratio = (picture?.height ?? 1) / (picture?.width ?? 1)
  view.width = view.clientWidth || 240
  view.height = Math.round(view.width * ratio)
  const context = context2d(view)
  context.imageSmoothingEnabled = false
  if (picture != null) context.drawImage(picture.canvas, ...tileBox(picture, 0), 0, 0, view.width, view.height)
  const height = view.height / tiles.rows, width = view.width / tiles.columns
  for (const {top, left, color} of isPending ? tiles.patches() : []) {
    context.fillStyle = color == null ? ERASED : `rgb(${color.join(" ")})`
    context.fillRect(left * view.width, top * view.height, width, height)
  }
  if (document.activeElement !== view || !view.matches(":focus-visible")) return
  context.lineWidth = 3
  for (const [style, line] of /** @type {const} */ ([["#000", 3], ["#fff", 1]])) { // visible on any image
    context.strokeStyle = style
    context.lineWidth = line
    context.strokeRect(cursor.column * width + 1, cursor.row * height + 1, width - 2, height - 2)
  }
}

/**
 * @param {PointerEvent} event
 * @returns {Tile}
 */
function tileAt(event) {
  const {left, top, width, height} = canvas().getBoundingClientRect()
  return {
    row: Math.floor((event.clientY - top) / height * tiles.rows),
    column: Math.floor((event.clientX - left) / width * tiles.columns),
  }
}

/** @returns {Color | null} */
const fill = () => brush === "erase" ? null : parseHexColor(colorField().value)

/**
 * @param {Tile[]} changed
 * @param {Color | null | undefined} [value]
 */
function paint(changed, value = fill()) {
  if (changed.map((tile) => tiles.paint(tile, value)).includes(true)) sendSoon()
}

function sendSoon() {
  isPending = true
  failure = ""
  describe()
  timer ??= window.setTimeout(send, SEND_MS)
}

function send() {
  timer = undefined
  sendCommand("paint_over_shown_image", {patches: tiles.patches()})
}

/** @param {KeyboardEvent} event */
function onKey(event) {
  const step = STEPS[event.key], isErasing = event.key === " " || event.key === "Enter"
  const isRestoring = event.key === "Backspace" || event.key === "Delete"
  if (step == null && !isErasing && !isRestoring) return
  event.preventDefault()
  event.stopPropagation() // the same keys of the page act on the network
  if (step != null) {
    cursor = {row: clamp(cursor.row + step[0], 0, tiles.rows - 1), column: clamp(cursor.column + step[1], 0, tiles.columns - 1)}
    draw()
  } else if (isRestoring) {
    if (tiles.paint(cursor, undefined)) sendSoon()
  } else paint([cursor])
  const found = tiles.fillOf(cursor), state = found === undefined ? "as it was" : found == null ? "erased" : "painted"
  announce(`row ${cursor.row + 1}, column ${cursor.column + 1}, ${state}`)
}

/** @param {string} chosen */
function setBrush(chosen) {
  brush = chosen
  markPressedButton("brush", chosen)
}

/** Forget what is painted, and the last file: another image is being shown. */
function clear() {
  failure = ""
  window.clearTimeout(timer)
  timer = undefined
  tiles.reset(tiles.rows, tiles.columns)
}

function restore() {
  clear()
  send()
  describe()
  canvas().focus()
}

/** @param {File} file */
async function show(file) {
  failure = ""
  const side = input?.picture_side ?? 0, refusal = latest("header")?.request_refusal ?? ""
  if (side === 0 || refusal !== "") {
    showNotice(refusal || NO_PICTURES)
    return
  }
  try {
    await sendPicture(file, side)
    clear()
    announce(`${file.name} is shown to the network`)
  } catch (error) {
    failure = `The browser cannot read ${file.name} as a picture (${error instanceof Error ? error.message : error}); choose a PNG or JPEG.`
    announce(failure)
  }
  if (editor().matches(":popover-open")) describe()
  else if (failure) open()
}
