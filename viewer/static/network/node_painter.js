/** Draws the nodes of the network: dots, or bars that stand for several filters. */

import {easeOut} from "../shared/math.js"
import {jitterInPlace} from "./jitter.js"
import {nodeScale} from "./viewport.js"

/** @import {Context, Scene} from "../shared/drawing_loop.js" */
/** @import {NumberArray} from "../shared/frame.js" */
/** @import {NodeStates} from "../shared/page_config.js" */
/** @import {ThemeColors} from "../shared/theme.js" */
/** @import {Tween} from "./tween.js" */
/** @import {Transform} from "./viewport.js" */

const TWEEN_MS = 450

/**
 * @typedef {object} NodeSceneFields
 * @property {Transform} transform
 * @property {NumberArray} x of each node at rest, in the layout
 * @property {NumberArray} y
 * @property {NumberArray} size diameter of a dot, height of a bar
 * @property {NumberArray} bar width of a bar; 0 for a dot
 * @property {NumberArray} phase of its motion
 * @property {NumberArray} amplitude 0 to 1: how strongly it moves
 * @property {NumberArray} tone 0 to 1: its color
 * @property {NumberArray} state
 * @property {Tween | null} tween
 * @property {NodeStates} states
 * @property {ThemeColors} colors
 * @property {number} motion factor of all motion
 * @property {number} selected
 * @property {number} hovered
 * @property {readonly number[]} also
 * @property {readonly number[]} coupled
 */
/** @typedef {Scene & NodeSceneFields} NodeScene */

/**
 * @typedef {object} Places of all nodes at one moment, px
 * @property {Float32Array} x
 * @property {Float32Array} y
 * @property {Float32Array} size
 * @property {Float32Array} bar
 */

/**
 * How much of a tween is over, 0 to 1: it begins with the first frame that shows it.
 * @param {Tween} tween
 * @param {number} now
 */
function progress(tween, now) {
  tween.start ??= now
  return Math.min(1, Math.max(0, (now - tween.start) / TWEEN_MS))
}

/**
 * @param {NodeScene} scene
 * @param {number} now
 * @returns {Places}
 */
function restingPlaces({x, y, size, bar, tween, transform}, now) {
  const {left, top, scaleX, scaleY} = transform
  const scale = nodeScale(transform)
  const places = {
    x: Float32Array.from(x), y: Float32Array.from(y), size: Float32Array.from(size), bar: Float32Array.from(bar),
  }
  if (tween != null) applyTween(places, tween, easeOut(progress(tween, now)))
  for (let i = 0; i < x.length; i++) {
    places.x[i] = (places.x[i] - left) * scaleX
    places.y[i] = (places.y[i] - top) * scaleY
    places.size[i] *= scale
    places.bar[i] *= scale
  }
  return places
}

/**
 * @param {Places} places
 * @param {Tween} tween
 * @param {number} t
 */
function applyTween(places, tween, t) {
  for (let i = 0; i < places.x.length; i++) {
    if (Number.isNaN(tween.x[i])) {
      places.size[i] *= t // a new node grows where it is
      continue
    }
    places.x[i] = tween.x[i] + (places.x[i] - tween.x[i]) * t
    places.y[i] = tween.y[i] + (places.y[i] - tween.y[i]) * t
    places.size[i] = tween.size[i] + (places.size[i] - tween.size[i]) * t
  }
}

/**
 * Add a dot or a bar to the path.
 * @param {Context} ctx
 * @param {number} x
 * @param {number} y
 * @param {number} size
 * @param {number} bar
 */
function outline(ctx, x, y, size, bar) {
  if (bar > 0) ctx.rect(x - bar / 2, y - size / 2, bar, size)
  else {
    ctx.moveTo(x + size / 2, y)
    ctx.arc(x, y, size / 2, 0, 2 * Math.PI)
  }
}

/**
 * Draw the nodes without a special state, one path per color.
 * @param {Context} ctx
 * @param {NodeScene} scene
 * @param {Places} places
 * @returns {number[]} the nodes that are left to be drawn
 */
function paintNormal(ctx, {state, states, tone, colors}, {x, y, size, bar}) {
  const steps = colors.gradient.length
  /** @type {number[][]} */
  const buckets = Array.from({length: steps}, () => [])
  /** @type {number[]} */
  const special = []
  for (let i = 0; i < x.length; i++) {
    if (state[i] === states.normal) buckets[Math.min(steps - 1, Math.trunc(tone[i] * steps))].push(i)
    else special.push(i)
  }
  buckets.forEach((bucket, step) => {
    if (bucket.length === 0) return
    ctx.fillStyle = colors.gradient[step]
    ctx.beginPath()
    for (const i of bucket) {
      if (bar[i] > 0) ctx.fillRect(x[i] - bar[i] / 2, y[i] - size[i] / 2, bar[i], size[i]) // much faster than in a path
      else outline(ctx, x[i], y[i], size[i], 0)
    }
    ctx.fill()
  })
  return special
}

/**
 * Draw a dead node hollow, and a frozen one with an outline.
 * @param {Context} ctx
 * @param {NodeScene} scene
 * @param {Places} places
 * @param {number} i
 */
function paintOutlined(ctx, {state, states, colors, tone}, {x, y, size, bar}, i) {
  const steps = colors.gradient.length
  ctx.beginPath()
  outline(ctx, x[i], y[i], Math.max(1.5, size[i] - 1.2), Math.max(0, bar[i] - 1.2))
  ctx.lineWidth = 1.2
  ctx.strokeStyle = state[i] === states.dead ? colors.dead : colors.frozen
  if (state[i] === states.frozen) {
    ctx.fillStyle = colors.gradient[Math.min(steps - 1, Math.trunc(tone[i] * steps))]
    ctx.fill()
  }
  ctx.stroke()
}

/**
 * Draw a node that is new, staged for removal, or coupled with one that is.
 * @param {Context} ctx
 * @param {NodeScene} scene
 * @param {Places} places
 * @param {number} i
 * @param {number} now
 */
function paintPulsing(ctx, {state, states, colors, motion}, {x, y, size, bar}, i, now) {
  const pulse = motion > 0 ? 0.5 + 0.5 * Math.sin(now / 1000 * 5) : 0.6
  const isCoupled = state[i] === states.coupled
  const grow = isCoupled ? 0 : 1.5 + 1.5 * pulse
  ctx.beginPath()
  outline(ctx, x[i], y[i], size[i] + grow, bar[i] > 0 ? bar[i] + 2 * grow : 0)
  ctx.fillStyle = ctx.strokeStyle = state[i] === states.new ? colors.added : colors.staged
  ctx.lineWidth = 1.4
  ctx.globalAlpha = isCoupled ? 0.25 + 0.2 * pulse : 0.45 + 0.45 * pulse
  ctx.fill()
  ctx.globalAlpha = 1
  ctx.stroke()
}

/**
 * Draw the nodes that were removed: they shrink away.
 * @param {Context} ctx
 * @param {NodeScene} scene
 * @param {Tween} tween
 * @param {number} now
 */
function paintRemoved(ctx, {colors, transform}, tween, now) {
  const t = progress(tween, now)
  if (t === 1) return
  const {left, top, scaleX, scaleY} = transform
  const scale = (1 - easeOut(t)) * 1.5 * nodeScale(transform)
  ctx.globalAlpha = 1 - t
  ctx.fillStyle = colors.staged
  ctx.beginPath()
  for (const [x, y, size] of tween.removed) {
    outline(ctx, (x - left) * scaleX, (y - top) * scaleY, Math.min(14, size) * scale, 0)
  }
  ctx.fill()
  ctx.globalAlpha = 1
}

/**
 * @param {Context} ctx
 * @param {NodeScene} scene
 * @param {Places} places
 */
function paintRings(ctx, {colors, coupled, hovered, also, selected}, {x, y, size, bar}) {
  const ring = (/** @type {string} */ color, /** @type {number} */ width, /** @type {number} */ i) => {
    if (i < 0 || i >= x.length) return
    const isBar = bar[i] > 0
    ctx.beginPath()
    outline(ctx, x[i], y[i], size[i] + (isBar ? 4 : 6), isBar ? bar[i] + 6 : 0)
    ctx.lineWidth = width
    ctx.strokeStyle = color
    ctx.stroke()
  }
  for (const i of coupled) ring(colors.hover, 1, i)
  ring(colors.hover, 1.5, hovered)
  for (const i of also) ring(colors.selected, 1.2, i)
  ring(colors.selected, 2, selected)
}

/**
 * @param {Context} ctx
 * @param {NodeScene} scene
 * @param {number} now
 * @returns {boolean} whether the next frame will look different
 */
export function paintNodes(ctx, scene, now) {
  const {state, states} = scene
  ctx.clearRect(0, 0, scene.width, scene.height)
  const places = restingPlaces(scene, now)
  jitterInPlace(places, scene, now)
  for (const i of paintNormal(ctx, scene, places)) {
    if (state[i] === states.absent) continue
    if (state[i] === states.dead || state[i] === states.frozen) paintOutlined(ctx, scene, places, i)
    else paintPulsing(ctx, scene, places, i, now)
  }
  if (scene.tween != null) {
    paintRemoved(ctx, scene, scene.tween, now)
    if (progress(scene.tween, now) === 1) scene.tween = null
  }
  paintRings(ctx, scene, places)
  return scene.motion > 0 || scene.tween != null
}
