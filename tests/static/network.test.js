import assert from "node:assert/strict"
import test from "node:test"

import {nodeAt} from "../../viewer/static/network/hit_test.js"
import {pinchStep} from "../../viewer/static/network/pinch.js"
import {paintPaths} from "../../viewer/static/network/path_painter.js"
import {tweenBetween} from "../../viewer/static/network/tween.js"
import {Viewport} from "../../viewer/static/network/viewport.js"
import {colorSteps} from "../../viewer/static/shared/color_steps.js"

const IDENTITY = {left: 0, top: 0, scaleX: 1, scaleY: 1}

/** Return a context that records its calls, with the style that each stroke has. */
function recordingContext() {
  const calls = []
  const state = {}
  return new Proxy(state, {
    get: (_, name) => name === "calls" ? calls : name in state ? state[name] : (...args) => calls.push([name, ...args, {...state}]),
    set: (_, name, value) => Reflect.set(state, name, value),
  })
}

/** Return what `paintPaths` paints: `count` paths of rising weight between two columns. */
function pathScene(count, changes = {}) {
  const values = (value) => Float32Array.from({length: count}, (_, i) => value(i))
  return {
    width: 400, height: 200, ratio: 1, transform: IDENTITY, startY: null, whole: true, framesLeft: Infinity,
    x: values(() => 10), y: values((i) => i), x1: values(() => 60), y1: values((i) => 2 * i),
    weight: values((i) => (i + 0.5) / count), mark: new Uint8Array(count), pathWidth: values(() => 4),
    arcs: {x0: [], y0: [], a: [], level: [], b: [], x1: [], y1: [], width: [], is_sum: []}, arcWeight: [],
    colors: {paths: ["thin", "thick"], selectedPath: "selected", staged: "staged", muted: "muted"},
    ...changes,
  }
}

/** Return the calls of one name. */
const named = (context, name) => context.calls.filter(([called]) => called === name)

test("a node is hit within its size and a margin, the nearest one first", () => {
  const nodes = {x: [100, 108, 300], y: [50, 50, 50], size: [8, 8, 60], bar: [0, 0, 20]}
  assert.equal(nodeAt(nodes, IDENTITY, 101, 52), 0)
  assert.equal(nodeAt(nodes, IDENTITY, 105, 50), 1)
  assert.equal(nodeAt(nodes, IDENTITY, 200, 50), -1)
  assert.equal(nodeAt(nodes, IDENTITY, 100, 58), -1)
  assert.equal(nodeAt(nodes, IDENTITY, 308, 75), 2) // a bar is hit over its whole height
})

test("nodes are hit where they are in view, and grow more slowly than the distances", () => {
  const nodes = {x: [100], y: [50], size: [8], bar: [0]}, zoomed = {left: 90, top: 40, scaleX: 10, scaleY: 10}
  assert.equal(nodeAt(nodes, zoomed, 100, 100), 0)
  assert.equal(nodeAt(nodes, zoomed, 100 + 4 * 10 ** 0.85, 100), 0)
  assert.equal(nodeAt(nodes, zoomed, 100 + 50, 100), -1)
})

test("zooming keeps the point under the pointer, and the view stays within the layout", () => {
  const viewport = new Viewport()
  viewport.setLayoutSize(1000, 500)
  viewport.setSize(1000, 500)
  viewport.zoomAt(700, 100, 4)
  assert.deepEqual(viewport.toScreen(700, 100).map(Math.round), [700, 100])
  viewport.show(-50, 9999)
  assert.deepEqual([viewport.left, viewport.top], [0, 375])
  viewport.zoomAt(0, 0, 1e-6)
  assert.ok(viewport.showsAll)
  assert.deepEqual(viewport.toLayout(250, 250), [250, 250])
  viewport.zoomAt(10, 10, 1e6)
  assert.equal(viewport.zoom, 24)
})

test("after a relayout, kept nodes start from where they were, new ones from nowhere, removed ones shrink", () => {
  const placed = (key, x) => ({nodes: {x, y: x, size: x.map(() => 5), key}, transform: IDENTITY})
  const tween = tweenBetween(placed([1, 2, 3], [10, 20, 30]), placed([3, 1, 9], [1, 2, 3]))
  assert.deepEqual([...tween.x], [30, 10, NaN])
  assert.deepEqual(tween.removed, [[20, 20, 5]])
  assert.equal(tweenBetween(placed([1], [10]), placed([2], [10])), null)
})

test("a scene with new places is painted as a whole, in one frame", () => {
  const context = recordingContext(), scene = pathScene(1000)
  assert.equal(paintPaths(context, scene), false)
  assert.equal(named(context, "bezierCurveTo").length, 1000)
  assert.deepEqual(named(context, "clearRect")[0].slice(1, 5), [0, 0, 400, 200])
})

test("new weights alone are painted one strip per frame, and the strips cover the view", () => {
  const context = recordingContext(), scene = pathScene(1000, {whole: false})
  const more = Array.from({length: 4}, () => paintPaths(context, scene))
  assert.deepEqual(more, [true, true, true, false])
  const strips = named(context, "clearRect").map(([, left, , width]) => [left, width])
  assert.deepEqual(strips, [[0, 100], [100, 100], [200, 100], [300, 100]])
})

test("heavier paths are thicker and more opaque, and marked ones lie above them", () => {
  const context = recordingContext(), mark = Uint8Array.of(0, 1, 2, 0)
  paintPaths(context, pathScene(4, {mark, startY: 99}))
  const strokes = named(context, "stroke").map((call) => call.at(-1))
  assert.deepEqual(strokes.map(({strokeStyle}) => strokeStyle), ["thin", "thick", "selected", "staged"])
  assert.ok(strokes[0].lineWidth < strokes[1].lineWidth)
  assert.ok(strokes[0].globalAlpha < strokes[1].globalAlpha)
  const starts = named(context, "moveTo").map(([, x, y]) => [x, y])
  assert.deepEqual(starts, [[10, 0], [10, 3], [10, 99], [10, 2]])
})

test("a path of a wider bundle is thicker at the same weight", () => {
  const context = recordingContext()
  paintPaths(context, pathScene(2, {weight: Float32Array.of(0.9, 0.9), pathWidth: Float32Array.of(2, 8)}))
  const [narrow, wide] = named(context, "stroke").map((call) => call.at(-1).lineWidth)
  assert.ok(wide > 3 * narrow)
})

test("an arc leaves its layer, runs below what it skips, and ends at the layer that reads it", () => {
  const context = recordingContext()
  const arcs = {x0: [20], y0: [90], a: [30], level: [150], b: [180], x1: [190], y1: [80], width: [3], is_sum: [1]}
  paintPaths(context, pathScene(0, {arcs, arcWeight: [1]}))
  const corners = named(context, "quadraticCurveTo").map(([, x, y]) => [x, y])
  assert.deepEqual(named(context, "moveTo")[0].slice(1, 3), [20, 90])
  assert.deepEqual(corners, [[30, 90], [30, 150], [180, 150], [180, 80]])
  assert.deepEqual(named(context, "lineTo").at(-1).slice(1, 3), [190, 80])
  assert.equal(named(context, "stroke")[0].at(-1).lineWidth, 3)
})

test("color steps run from the first stop to the last", () => {
  assert.deepEqual(colorSteps(["#000000", "#ff0000", "#ffffff"], 3), ["rgb(0,0,0)", "rgb(255,0,0)", "rgb(255,255,255)"])
  assert.equal(colorSteps(["#000000", "#ffffff"], 24).length, 24)
})

test("two fingers zoom around their middle by how far they move apart, and move what is between them", () => {
  assert.deepEqual(pinchStep([0, 0], [100, 0], [200, 0]), {x: 100, y: 0, dx: 50, dy: 0, factor: 2})
  const together = pinchStep([0, 0], [0, 0], [0, 0])
  assert.equal(together.factor, 1)
})
