/** The network view as a drawing: paths and nodes as on the screen, and what is written above them. */

import {svgElement, escapeXml, px} from "../shared/svg_text.js"
import {SvgContext} from "../shared/svg_context.js"
import {paintNodes} from "./node_painter.js"
import {paintPaths} from "./path_painter.js"

/** @import {Context} from "../shared/drawing_loop.js" */
/** @import {NodeScene} from "./node_painter.js" */
/** @import {PathScene} from "./path_painter.js" */

const TITLE_HEIGHT = 44 // px
const SCALE = 2 // how much larger than on the screen the drawing opens

/** @typedef {{text: string, x: number, y: number, size: number, weight: string, color: string}} Label centered at x, y */
/** @typedef {{x: number, y: number, width: number, height: number, radius: number}} Frame of a stage */
/** @typedef {{x: number, y: number, width: number, height: number, href: string}} Picture of the input, as a data URL */
/** @typedef {{x: number, y: number, width: number, height: number, radius: number, color: string}} Shape filled: a node, a mark */

/**
 * @typedef {object} Drawing
 * @property {number} width px
 * @property {number} height px
 * @property {string} title
 * @property {string} subtitle
 * @property {Frame[]} frames
 * @property {Label[]} labels
 * @property {Picture[]} [pictures]
 * @property {Shape[]} [shapes]
 * @property {PathScene} paths
 * @property {NodeScene} nodes
 * @property {(variable: string) => string} cssValue
 */

/**
 * Return the text of an SVG file that needs no other file.
 * @param {Drawing} drawing
 */
export function networkDrawing({width, height, title, subtitle, frames, labels, pictures = [], shapes = [], paths, nodes, cssValue}) {
  const total = height + TITLE_HEIGHT
  return `<?xml version="1.0" encoding="UTF-8"?>\n` + svgElement("svg",
    {xmlns: "http://www.w3.org/2000/svg", width: SCALE * width, height: SCALE * total, viewBox: `0 0 ${px(width)} ${px(total)}`,
     "font-family": cssValue("--font")},
    svgElement("clipPath", {id: "view"}, svgElement("rect", {width, height})),
    svgElement("rect", {width, height: total, fill: cssValue("--card")}),
    svgElement("text", {x: 12, y: 19, fill: cssValue("--text"), "font-size": 13, "font-weight": 600}, escapeXml(title)),
    svgElement("text", {x: 12, y: 34, fill: cssValue("--muted"), "font-size": 10.5}, escapeXml(subtitle)),
    svgElement("g", {transform: `translate(0 ${TITLE_HEIGHT})`, "clip-path": "url(#view)"},
      ...frames.map((frame) => stageFrame(frame, cssValue)), paintedNetwork(paths, nodes),
      ...shapes.map(filledShape), ...pictures.map(picture), ...labels.map(label))) + "\n"
}

/**
 * Paths and nodes at rest, without what the pointer marks.
 * @param {PathScene} paths
 * @param {NodeScene} nodes
 */
function paintedNetwork(paths, nodes) {
  const context = new SvgContext(), ctx = /** @type {Context} */ (/** @type {unknown} */ (context))
  paintPaths(ctx, {...paths, whole: true, framesLeft: Infinity})
  paintNodes(ctx, {...nodes, motion: 0, tween: null, hovered: -1}, 0)
  return context.svg
}

/**
 * @param {Frame} frame
 * @param {(variable: string) => string} cssValue
 */
function stageFrame({x, y, width, height, radius}, cssValue) {
  return svgElement("rect", {
    x: px(x), y: px(y), width: px(width), height: px(height), rx: radius, fill: cssValue("--blue"), "fill-opacity": 0.04,
    stroke: cssValue("--line"),
  })
}

/** @param {Picture} picture */
function picture({x, y, width, height, href}) {
  return svgElement("image", {
    x: px(x), y: px(y), width: px(width), height: px(height), href, preserveAspectRatio: "none", style: "image-rendering: pixelated",
  })
}

/** @param {Shape} shape */
function filledShape({x, y, width, height, radius, color}) {
  return svgElement("rect", {x: px(x), y: px(y), width: px(width), height: px(height), rx: px(radius), fill: color})
}

/** @param {Label} label */
function label({text, x, y, size, weight, color}) {
  return svgElement("text", {
    x: px(x), y: px(y), "font-size": px(size), "font-weight": weight, fill: color, "text-anchor": "middle",
    "dominant-baseline": "central",
  }, escapeXml(text))
}
