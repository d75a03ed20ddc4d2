/** Draws the paths between layers and blocks, and the arcs of connections that skip layers.
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
const MARKED = {selected: 1, staged: 2}
const LEAST = 0.14 // width of a path that carries nothing, as a share of its full width
const MIN_WIDTH = 0.5 // px
const WIDTH_STEPS = 2 // of the width of paths that are stroked together, per px
const ARC_RADIUS = 9 // px
const LEAST_ARC = 0.4 // width of an arc that carries nothing

/**
 * @typedef {object} PathSceneFields
 * @property {Transform} transform
 * @property {NumberArray} x where each path begins, in the layout
 * @property {NumberArray} y
 * @property {NumberArray} x1 where it ends
 * @property {NumberArray} y1
 * @property {NumberArray} pathWidth px, at full weight
 * @property {NumberArray} weight 0 to 1
 * @property {NumberArray} mark 1 of the selected node, 2 of a staged one
 * @property {number | null} startY height of the selected node, in the layout
 * @property {ArcsData} arcs
 * @property {NumberArray} arcWeight 0 to 1
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
function pathEnds({x, y, x1, y1, transform}) {
  const {left, top, scaleX, scaleY} = transform
  return Array.from(x, (_, i) =>
    [(x[i] - left) * scaleX, (y[i] - top) * scaleY, (x1[i] - left) * scaleX, (y1[i] - top) * scaleY])
}

/**
 * Add a path: it leaves and arrives horizontally.
 * @param {Context} ctx
 * @param {Ends} ends
 */
function curve(ctx, [x, y, x1, y1]) {
  const middle = (x + x1) / 2
  ctx.moveTo(x, y)
  ctx.bezierCurveTo(middle, y, middle, y1, x1, y1)
}

/** Factor of all widths: paths grow more slowly than the distances between them.
 * @param {PathScene} scene */
const widthScale = ({transform}) => Math.sqrt(Math.max(1, transform.scaleY))

/**
 * Sort the paths by weight and width.
 * @param {PathScene} scene
 * @returns {{buckets: Map<number, number[]>[], marked: number[]}} unmarked paths from weak to strong, by width; marked ones
 */
function sortPaths({weight, pathWidth, mark, colors}) {
  const steps = colors.paths.length
  /** @type {Map<number, number[]>[]} */
  const buckets = Array.from({length: steps}, () => new Map())
  /** @type {number[]} */
  const marked = []
  for (let i = 0; i < weight.length; i++) {
    if (mark[i] > 0) marked.push(i)
    else {
      const bucket = buckets[Math.min(steps - 1, Math.trunc(weight[i] * steps))]
      const width = Math.max(1, Math.round(pathWidth[i] * WIDTH_STEPS)) / WIDTH_STEPS
      const same = bucket.get(width)
      if (same == null) bucket.set(width, [i])
      else same.push(i)
    }
  }
  return {buckets, marked}
}

/**
 * Stroke the unmarked paths that reach into the strip, but always the same ones together: where they cross, they look the
 * same in every strip.
 * @param {Context} ctx
 * @param {PathScene} scene
 * @param {Ends[]} ends
 * @param {Map<number, number[]>[]} buckets
 * @param {number} dim factor of the opacity
 * @param {[number, number]} strip
 */
function paintUnmarked(ctx, scene, ends, buckets, dim, [left, right]) {
  const lightness = Math.min(1, Math.max(0.5, Math.sqrt(900 / ends.length)))
  buckets.forEach((bucket, step) => {
    const u = (step + 0.5) / buckets.length
    ctx.globalAlpha = (0.22 + 0.5 * u) * dim * lightness
    ctx.strokeStyle = scene.colors.paths[step]
    for (const [width, paths] of bucket) {
      ctx.lineWidth = Math.max(MIN_WIDTH, width * (LEAST + (1 - LEAST) * u ** 1.5)) * widthScale(scene)
      for (let from = 0; from < paths.length; from += BATCH) {
        ctx.beginPath()
        for (const i of paths.slice(from, from + BATCH)) {
          if (ends[i][0] < right && ends[i][2] > left) curve(ctx, ends[i])
        }
        ctx.stroke()
      }
    }
  })
  ctx.globalAlpha = 1
}

/**
 * Stroke the paths of the selected node, which begin at its height where they stand for more, and of staged ones.
 * @param {Context} ctx
 * @param {PathScene} scene
 * @param {Ends[]} ends
 * @param {number[]} marked
 */
function paintMarked(ctx, scene, ends, marked) {
  const {startY, transform} = scene
  const firstX = Math.min(...marked.filter((i) => scene.mark[i] === MARKED.selected).map((i) => scene.x[i]))
  for (const i of marked) {
    const isSelected = scene.mark[i] === MARKED.selected
    const [x, y, x1, y1] = ends[i]
    const starts = isSelected && startY != null && scene.x[i] === firstX
    ctx.lineWidth = Math.max(1.2, scene.pathWidth[i] * (0.25 + 0.75 * scene.weight[i])) * widthScale(scene)
    ctx.strokeStyle = isSelected ? scene.colors.selectedPath : scene.colors.staged
    ctx.beginPath()
    curve(ctx, [x, starts ? (startY - transform.top) * transform.scaleY : y, x1, y1])
    ctx.stroke()
  }
}

/** @typedef {[x: number, y: number]} Point px */

/**
 * Add a line to a corner, rounded, on the way to the next one.
 * @param {Context} ctx
 * @param {Point} from
 * @param {Point} at
 * @param {Point} to
 * @param {number} radius
 */
function corner(ctx, [fromX, fromY], [x, y], [toX, toY], radius) {
  ctx.lineTo(x - radius * Math.sign(x - fromX), y - radius * Math.sign(y - fromY))
  ctx.quadraticCurveTo(x, y, x + radius * Math.sign(toX - x), y + radius * Math.sign(toY - y))
}

/** @param {...number} room px beside the corner */
const cornerRadius = (...room) => Math.max(0, Math.min(ARC_RADIUS, ...room.map(Math.abs)))

/**
 * @param {Context} ctx
 * @param {PathScene} scene
 * @param {[number, number]} strip
 */
function paintArcs(ctx, scene, [leftEdge, rightEdge]) {
  const {arcs, arcWeight, transform, colors} = scene
  const {left, top, scaleX, scaleY} = transform
  const toX = (/** @type {number} */ x) => (x - left) * scaleX
  const toY = (/** @type {number} */ y) => (y - top) * scaleY
  const steps = colors.paths.length
  for (let i = 0; i < arcs.x0.length; i++) {
    const [x0, a, b, x1] = [toX(arcs.x0[i]), toX(arcs.a[i]), toX(arcs.b[i]), toX(arcs.x1[i])]
    if (x0 > rightEdge || x1 < leftEdge) continue
    const [y0, level, y1] = [toY(arcs.y0[i]), toY(arcs.level[i]), toY(arcs.y1[i])]
    const u = arcWeight[i] ?? 0
    ctx.lineWidth = Math.max(1.2, arcs.width[i] * (LEAST_ARC + (1 - LEAST_ARC) * u)) * widthScale(scene)
    ctx.strokeStyle = colors.paths[Math.min(steps - 1, Math.trunc(u * steps))]
    ctx.globalAlpha = 0.5 + 0.4 * u
    ctx.setLineDash(arcs.is_sum[i] > 0 ? [2.5, 3.5] : [])
    ctx.beginPath()
    ctx.moveTo(x0, y0)
    corner(ctx, [x0, y0], [a, y0], [a, level], cornerRadius(a - x0, (level - y0) / 2))
    corner(ctx, [a, y0], [a, level], [b, level], cornerRadius((b - a) / 2, (level - y0) / 2))
    corner(ctx, [a, level], [b, level], [b, y1], cornerRadius((b - a) / 2, (level - y1) / 2))
    corner(ctx, [b, level], [b, y1], [x1, y1], cornerRadius(x1 - b, (level - y1) / 2))
    ctx.lineTo(x1, y1)
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
