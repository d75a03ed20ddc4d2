/** Saving the network view as a drawing or as an image. */

import {byId, buttonsWith, createElement, elements} from "../shared/dom.js"
import {fileName} from "../shared/file_name.js"
import {joinFacts} from "../shared/format.js"
import {latest} from "../shared/link.js"
import {saveFile} from "../shared/save_file.js"
import {colorMeaning} from "./color_name.js"
import {networkDrawing} from "./network_drawing.js"

/** @import {NetworkCanvas} from "./network_canvas.js" */
/** @import {NodeScene} from "./node_painter.js" */
/** @import {PathScene} from "./path_painter.js" */
/** @import {Frame, Label, Picture, Shape} from "./network_drawing.js" */

// The texts above and beside the network
const WRITTEN = ".column > b, .column > .fold, .column > span, .stage > b, .end-head > *, #network-generated-name, .output > :is(.name, .share, b)"
const FILLED = "#network-channels > *, .output > i, .mark"
/** @type {Record<string, string>} */
const COLORS = {gradient: "mean |∇| of its filter", price: "change of the loss without its filter"}
const MARK_WIDTH = 1 // px

/** @param {() => NetworkCanvas | null} canvas */
export function startNetworkExport(canvas) {
  for (const button of buttonsWith("save-network")) {
    button.addEventListener("click", () => {
      const shown = canvas()
      if (shown == null || latest("network_layout")?.layers?.length == null) return
      const svg = new Blob([drawingOf(shown)], {type: "image/svg+xml"})
      if (button.dataset.saveNetwork === "svg") saveFile(svg, nameOf("svg"))
      else void savePng(svg)
    })
  }
}

/** @param {NetworkCanvas} canvas */
function drawingOf({paths, nodes, viewport}) {
  const style = getComputedStyle(document.documentElement)
  const {width, height} = viewport
  return networkDrawing({
    width, height, title: latest("header")?.model ?? "Network", subtitle: facts(), frames: stageFrames(), labels: labels(),
    pictures: pictures(), shapes: shapes(),
    paths: /** @type {PathScene} */ (paths.scene), nodes: /** @type {NodeScene} */ (nodes.scene),
    cssValue: (variable) => style.getPropertyValue(variable).trim(),
  })
}

function facts() {
  const {live = true, text = ""} = latest("timeline") ?? {}
  const batch = latest("header")?.fields.find(({label}) => label === "Batch")?.title ?? ""
  return joinFacts([live ? batch : text, `color of a node: ${COLORS[colorMeaning()] ?? colorMeaning()}`, "width of a path: Σ activation"])
}

/** @returns {Frame[]} */
function stageFrames() {
  return [...elements("#columns :is(.stage, .block)")].map((stage) => {
    const {left, top, width, height} = inPlot(stage)
    return {x: left, y: top, width, height, radius: parseFloat(getComputedStyle(stage).borderRadius)}
  })
}

/** @returns {Label[]} what is written and visible */
function labels() {
  return [...elements(WRITTEN)].filter((element) => element.checkVisibility({visibilityProperty: true})).map((element) => {
    const {left, top, width, height} = inPlot(element)
    const {fontSize, fontWeight, color} = getComputedStyle(element)
    return {
      text: element.textContent ?? "", x: left + width / 2, y: top + height / 2, size: parseFloat(fontSize), weight: fontWeight, color,
    }
  })
}

/** @returns {Picture[]} the input, and a generated image */
function pictures() {
  const canvases = ["network-input-picture", "network-generated-picture"].map((id) => /** @type {HTMLCanvasElement} */ (byId(id)))
  return canvases.filter((canvas) => canvas.checkVisibility()).map((canvas) => ({...box(canvas), href: canvas.toDataURL()}))
}

/** @returns {Shape[]} the nodes of the input and the outputs, and the marks between */
function shapes() {
  return [...elements(FILLED)].filter((element) => element.checkVisibility()).map((element) => {
    const {x, y, width, height} = box(element), {backgroundColor, color} = getComputedStyle(element)
    const isMark = element.classList.contains("mark")
    if (!isMark) return {x, y, width, height, radius: width / 2, color: backgroundColor}
    return {x: x + (width - MARK_WIDTH) / 2, y, width: MARK_WIDTH, height, radius: 0, color}
  })
}

/** @param {Element} element */
function box(element) {
  const {left, top, width, height} = inPlot(element)
  return {x: left, y: top, width, height}
}

/** @param {Element} element */
function inPlot(element) {
  const {left, top, width, height} = element.getBoundingClientRect()
  const plot = byId("plot").getBoundingClientRect()
  return {left: left - plot.left, top: top - plot.top, width, height}
}

/** @param {Blob} svg */
async function savePng(svg) {
  const image = new Image()
  image.src = URL.createObjectURL(svg)
  await image.decode()
  const sheet = createElement("canvas", {width: image.naturalWidth, height: image.naturalHeight})
  sheet.getContext("2d")?.drawImage(image, 0, 0)
  URL.revokeObjectURL(image.src)
  sheet.toBlob((blob) => blob != null && saveFile(blob, nameOf("png")))
}

/** @param {string} extension */
const nameOf = (extension) => fileName([latest("header")?.model ?? "", "network"], extension)
