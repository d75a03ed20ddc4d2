/** Draws the paths between the layers, and the arcs of connections that skip layers.
 *
 * New weights arrive all the time, and to stroke thousands of paths takes longer than a frame. So these are drawn one strip
 * per frame, from left to right: nothing else that is drawn meanwhile has to wait for them. */

/** @import {Context, Scene} from "../shared/drawing_loop.js" */
/** @import {NumberArray} from "../shared/frame.js" */
/** @import {ArcsData} from "../shared/parts.js" */
/** @import {ThemeColors} from "../shared/theme.js" */
/** @import {Transform} from "./viewport.js" */

const STRIP_PATHS = 300 // so many paths fit into a frame
const BATCH = 24 // paths per stroke: a long stroke is slow
const MAX_STRAIGHT = 110 // layout units between columns; longer paths bend towards the middle
const MARKED = {selected: 1, staged: 2}

/**
 * @typedef {object} PathSceneFields
 * @property {Transform} transform
 * @property {NumberArray} x where each path begins, in the layout
 * @property {NumberArray} y
 * @property {NumberArray} x1 where it ends
 * @property {NumberArray} y1
 * @property {NumberArray} weight 0 to 1
 * @property {NumberArray} mark 1 of the selected node, 2 of a staged one
 * @property {[number, number] | null} start of the paths of the selected node, in the layout
 * @property {number} scale factor of all widths
 * @property {ArcsData} arcs
 * @property {ThemeColors} colors
 * @property {boolean} whole whether more than the weights has changed
 * @property {number} framesLeft infinite when something changes
 * @property {number} [strip] the one drawn last
 */
/** @typedef {Scene & PathSceneFields} PathScene */

/** @typedef {[x: number, y: number, x1: number, y1: number]} Ends of a path, px */

/**
 * @param {PathScene} scene
 * @returns {Ends[]}
 */
function pathEnds({x, y, x1, y1, mark, start, transform}) {
  const {left, top, scaleX, scaleY} = transform
  return Array.from(x, (_, i) => {
    const [fromX, fromY] = mark[i] === MARKED.selected && start != null ? start : [x[i], y[i]]
    return [(fromX - left) * scaleX, (fromY - top) * scaleY, (x1[i] - left) * scaleX, (y1[i] - top) * scaleY]
  })
}

/**
 * Add a path. A long one bends towards the middle of the network, past the columns between its ends.
 * @param {Context} ctx
 * @param {PathScene} scene
 * @param {Ends} ends
 */
function curve(ctx, {transform, height}, [x, y, x1, y1]) {
  ctx.moveTo(x, y)
  if (x1 - x < MAX_STRAIGHT * transform.scaleX) {
    const reach = (x1 - x) * 0.5
    ctx.bezierCurveTo(x + reach, y, x1 - reach, y1, x1, y1)
    return
  }
  const middle = height / 2
  const waistX = (x + x1) / 2
  const waistY = middle + ((y + y1) / 2 - middle) * 0.84
  const reach = (x1 - x) * 0.24
  ctx.bezierCurveTo(x + reach, y, waistX - reach, waistY, waistX, waistY)
  ctx.bezierCurveTo(waistX + reach, waistY, x1 - reach, y1, x1, y1)
}

/**
 * Sort the paths by weight.
 * @param {PathScene} scene
 * @returns {{buckets: number[][], marked: number[]}} unmarked paths, from thin to thick, and marked ones
 */
function sortPaths({weight, mark, colors}) {
  const steps = colors.paths.length
  /** @type {number[][]} */
  const buckets = Array.from({length: steps}, () => [])
  /** @type {number[]} */
  const marked = []
  for (let i = 0; i < weight.length; i++) {
    if (mark[i] > 0) marked.push(i)
    else buckets[Math.min(steps - 1, Math.trunc(weight[i] * steps))].push(i)
  }
  return {buckets, marked}
}

/**
 * Stroke the unmarked paths that reach into the strip, but always the same ones together: where they cross, they look the
 * same in every strip.
 * @param {Context} ctx
 * @param {PathScene} scene
 * @param {Ends[]} ends
 * @param {number[][]} buckets
 * @param {number} dim factor of the opacity
 * @param {[number, number]} strip
 */
function paintUnmarked(ctx, scene, ends, buckets, dim, [left, right]) {
  const lightness = Math.min(1, Math.max(0.42, Math.sqrt(900 / ends.length)))
  buckets.forEach((bucket, step) => {
    const u = (step + 0.5) / buckets.length
    ctx.lineWidth = (0.4 + 3.4 * u * u) * scene.scale
    ctx.globalAlpha = (0.18 + 0.52 * u) * dim * lightness
    ctx.strokeStyle = scene.colors.paths[step]
    for (let from = 0; from < bucket.length; from += BATCH) {
      ctx.beginPath()
      for (const i of bucket.slice(from, from + BATCH)) {
        if (ends[i][0] < right && ends[i][2] > left) curve(ctx, scene, ends[i])
      }
      ctx.stroke()
    }
  })
  ctx.globalAlpha = 1
}

/**
 * @param {Context} ctx
 * @param {PathScene} scene
 * @param {Ends[]} ends
 * @param {number[]} marked
 */
function paintMarked(ctx, scene, ends, marked) {
  for (const i of marked) {
    ctx.lineWidth = (1 + 3.4 * scene.weight[i]) * scene.scale
    ctx.strokeStyle = scene.mark[i] === MARKED.selected ? scene.colors.selectedPath : scene.colors.staged
    ctx.beginPath()
    curve(ctx, scene, ends[i])
    ctx.stroke()
  }
}

/**
 * @param {Context} ctx
 * @param {PathScene} scene
 * @param {[number, number]} strip
 */
function paintArcs(ctx, {arcs, transform, colors}, [leftEdge, rightEdge]) {
  const {left, top, scaleX, scaleY} = transform
  const toX = (/** @type {number} */ x) => (x - left) * scaleX
  const toY = (/** @type {number} */ y) => (y - top) * scaleY
  ctx.lineWidth = 1.2
  ctx.strokeStyle = colors.muted
  ctx.globalAlpha = arcs.many ? 0.25 : 0.6
  ctx.setLineDash(arcs.many ? [] : [2, 3])
  for (let i = 0; i < arcs.x0.length; i++) {
    const [x0, x1, y, cy] = [toX(arcs.x0[i]), toX(arcs.x1[i]), toY(arcs.y[i]), toY(arcs.cy[i])]
    if (x0 > rightEdge || x1 < leftEdge) continue
    ctx.beginPath()
    ctx.moveTo(x0, y)
    ctx.bezierCurveTo(toX(arcs.c0[i]), cy, toX(arcs.c1[i]), cy, x1, y)
    ctx.stroke()
  }
  ctx.setLineDash([])
  ctx.globalAlpha = 1
}

/**
 * The strip that is drawn next; all of them, from this one on, if something changes meanwhile.
 * @param {PathScene} scene
 * @returns {[number, number]} left and right edge, px: whole device pixels
 */
function nextStrip(scene) {
  const strips = scene.whole ? 1 : Math.max(1, Math.ceil(scene.weight.length / STRIP_PATHS))
  const edge = (/** @type {number} */ strip) => Math.round(scene.width * scene.ratio * strip / strips) / scene.ratio
  scene.whole = false
  scene.strip = ((scene.strip ?? -1) + 1) % strips
  scene.framesLeft = Math.min(scene.framesLeft, strips) - 1
  return [edge(scene.strip), edge(scene.strip + 1)]
}

/**
 * @param {Context} ctx
 * @param {PathScene} scene
 * @returns {boolean} whether there are strips left to draw
 */
export function paintPaths(ctx, scene) {
  const strip = nextStrip(scene)
  const [left, right] = strip
  ctx.save()
  ctx.beginPath()
  ctx.rect(left, 0, right - left, scene.height)
  ctx.clip()
  ctx.clearRect(left, 0, right - left, scene.height)
  const ends = pathEnds(scene)
  const {buckets, marked} = sortPaths(scene)
  paintUnmarked(ctx, scene, ends, buckets, marked.length > 0 ? 0.55 : 1, strip)
  paintMarked(ctx, scene, ends, marked)
  paintArcs(ctx, scene, strip)
  ctx.restore()
  return scene.framesLeft > 0
}
