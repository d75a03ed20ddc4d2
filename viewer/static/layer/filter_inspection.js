/** What activates the selected filter: top images, the image it responds to most, and its attribution in the input image. */

import {byId, createElement, redrawChildren} from "../shared/dom.js"
import {asSentence, joinFacts} from "../shared/format.js"
import {sendCommand, subscribe} from "../shared/link.js"
import {frameCrop} from "./crop_frame.js"
import {isCurve} from "./framed_curve.js"
import {createFramedImage, refreshEnlargedImage, startEnlargedImages} from "./framed_image.js"
import {IMAGE_PENDING} from "./input_image.js"

/** @import {InspectionData, Size, TopImageData} from "../shared/parts.js" */
/** @import {FramedImage} from "./framed_image.js" */

const TOP_IMAGES = 9
/** @type {[key: "deconvolution" | "guided", caption: string][]} */
const ATTRIBUTIONS = [["deconvolution", "deconvolution"], ["guided", "guided backprop"]]
const PREFERRED_NOTE = "by gradient ascent with the priors of Yosinski et al. 2015; sharpens while it is shown"
const ATTRIBUTION_NOTE = "what of the input activates the filter; uniform where nothing does"

export function startFilterInspection() {
  startEnlargedImages(/** @type {HTMLElement} */ (document.querySelector(".pane.inspection")))
  byId("restart-ascent").addEventListener("click", () => sendCommand("restart_activation_maximization"))
  subscribe("inspection", drawInspection)
}

/** @param {InspectionData} data */
function drawInspection(data) {
  const isKnown = data.top_images != null
  const note = data.top_images?.length ? data.crop_note ?? "" : ""
  byId("crop-note").textContent = byId("crop-note").title = note
  redrawChildren(byId("top-images"), ...topImages(data))
  drawPreferred(data)
  byId("attribution-title").textContent = joinFacts([data.title, data.busy && IMAGE_PENDING])
  redrawChildren(byId("attribution"), ...attribution(data))
  byId("inspection-status").textContent = isKnown ? data.status : ""
  refreshEnlargedImage()
}

/** @param {InspectionData} data */
function topImages({top_images: images = [], receptive_field: receptiveField = [0, 0], ...data}) {
  if (images.length === 0) return [createElement("li", {class: "none"}, asSentence((data.no_top_images || data.status) ?? ""))]
  const items = images.map((image) => topImage(image, receptiveField))
  while (items.length < TOP_IMAGES) items.push(createElement("li"))
  return items
}

/**
 * @param {TopImageData} image
 * @param {Size} receptiveField
 */
function topImage({pixels, box, place, response, age}, receptiveField) {
  const picture = createFramedImage({pixels, ...frameCrop(box, receptiveField)}, [`response ${response}`, age, place])
  const caption = createElement("div", {class: "caption"}, createElement("b", {}, response), createElement("small", {title: age}, age.replace(/ batch(es)? /, " ")))
  return createElement("li", {}, picture, caption)
}

/** @param {InspectionData} data */
function drawPreferred({preferred, preferred_note: note = "", receptive_field: receptiveField = [0, 0], ...data}) {
  const place = byId("preferred-image"), progress = byId("preferred-progress")
  const isSaid = preferred == null && note !== "" && note === data.no_top_images // beside it, in the same words
  byId("preferred").hidden = data.top_images == null || isSaid
  byId("preferred-response").textContent = preferred?.response ?? ""
  progress.hidden = preferred == null || preferred.share === 1
  byId("restart-ascent").hidden = preferred == null
  if (preferred == null) {
    redrawChildren(place, message(note ? asSentence(note) : "Searching the image that the filter responds to most…"))
    return
  }
  progress.setAttribute("value", String(preferred.share))
  const frame = frameCrop(preferred.box, receptiveField)
  const lines = ["preferred image", `response ${preferred.response}`, `step ${preferred.steps}`, PREFERRED_NOTE]
  redrawChildren(place, createFramedImage({pixels: preferred.pixels, ...frame}, lines))
}

/** @param {InspectionData} data */
function attribution(data) {
  const {image, box, size, crop, receptive_field: receptiveField = [0, 0], title = "", refused} = data
  if (!image?.shape[0] || box == null || size == null) return refused ? [message(asSentence(refused))] : []
  const hasResponse = Boolean(data.response)
  /** @type {FramedImage} */
  const whole = {pixels: image, response: data.response_map, frame: size, size, offset: [0, 0], outline: hasResponse ? box : undefined}
  const figures = [figure("input", whole, title)]
  if (!crop?.shape[0]) return refused ? [...figures, message(asSentence(refused))] : figures
  const frame = frameCrop(box, receptiveField)
  figures.push(figure(`response ${data.response}`, {pixels: crop, ...frame}, "the receptive field of the strongest response"))
  if (refused) return [...figures, message(asSentence(`No attribution: ${refused}`))]
  if (data.inactive) return [...figures, message("This image does not activate the filter.")]
  for (const [key, caption] of ATTRIBUTIONS) {
    const pixels = data[key]
    if (pixels == null) continue
    const content = isCurve(crop) ? {pixels: crop, strip: pixels} : {pixels, colormap: "diverging"}
    figures.push(figure(caption, {...content, ...frame}, ATTRIBUTION_NOTE))
  }
  return figures
}

/**
 * @param {string} caption
 * @param {FramedImage} image
 * @param {string} note
 */
function figure(caption, image, note) {
  return createElement("figure", {}, createFramedImage(image, [caption, note]), createElement("figcaption", {}, caption))
}

/** @param {string} text */
function message(text) {
  return createElement("div", {class: "message"}, text)
}
