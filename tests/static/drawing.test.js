import assert from "node:assert/strict"
import test from "node:test"

import {networkDrawing} from "../../viewer/static/network/network_drawing.js"
import {SvgContext} from "../../viewer/static/shared/svg_context.js"

const IDENTITY = {left: 0, top: 0, scaleX: 1, scaleY: 1}
const STATES = {normal: 0, absent: 1, dead: 2, frozen: 3, new: 4, staged: 5, coupled: 6}
const COLORS = {
  gradient: ["weak", "strong"], paths: ["thin", "thick"], dead: "dead", added: "added", staged: "staged", frozen: "frozen",
  selected: "selected", selectedPath: "path", hover: "hover", muted: "muted",
}

function scenes() {
  const view = {width: 200, height: 100, ratio: 1, transform: IDENTITY, colors: COLORS}
  const paths = {
    ...view, startY: null, whole: false, framesLeft: 0, pathWidth: [4, 4], x: [10, 10], y: [20, 40], x1: [90, 90], y1: [20, 40],
    weight: [0.2, 0.9], mark: [0, 1], arcWeight: [0.9],
    arcs: {x0: [10], y0: [20], a: [20], level: [90], b: [80], x1: [90], y1: [20], width: [3], is_sum: [0]},
  }
  const nodes = {
    ...view, x: [10, 10, 90], y: [20, 40, 30], size: [8, 8, 20], bar: [0, 0, 6], phase: [0, 1, 2], amplitude: [0.1, 0.9, 0.5], tone: [0.1, 0.9, 0.5],
    state: [0, 2, 0], states: STATES, tween: null, motion: 1, selected: 0, hovered: 1, also: [], coupled: [],
  }
  return {paths, nodes}
}

const drawing = (changes = {}) => networkDrawing({
  width: 200, height: 100, title: "Net <1>", subtitle: "batch 7", frames: [{x: 5, y: 5, width: 90, height: 80, radius: 8}],
  labels: [{text: "conv1 & more", x: 10, y: 8, size: 13, weight: "600", color: "rgb(1, 2, 3)"}],
  ...scenes(), cssValue: (variable) => `var(${variable})`, ...changes,
})

test("a drawing of the network has its paths, nodes, frames and texts", () => {
  const svg = drawing()
  for (const color of ["thin", "thick", "path", "weak", "strong", "dead", "selected"]) {
    assert.ok(svg.includes(`"${color}"`), `${color} is missing`)
  }
  assert.ok(svg.includes("Net &lt;1&gt;"))
  assert.ok(svg.includes("conv1 &amp; more"))
  assert.ok(svg.startsWith("<?xml"))
})

test("a drawing shows nodes at rest, without the ring of the pointer", () => {
  const svg = drawing()
  assert.ok(!svg.includes('"hover"'))
  assert.equal(svg, drawing())
})

test("making a drawing leaves what the screen shows unchanged", () => {
  const {paths, nodes} = scenes()
  drawing({paths, nodes})
  assert.deepEqual({paths, nodes}, scenes())
})

test("every element of a drawing is closed", () => {
  const svg = drawing()
  const open = []
  for (const [, end, name, self] of svg.replace(/<\?.*?\?>/, "").matchAll(/<(\/?)([a-zA-Z]+)[^>]*?(\/?)>/g)) {
    if (end) assert.equal(open.pop(), name)
    else if (!self) open.push(name)
  }
  assert.deepEqual(open, [])
})

test("a whole circle is two arcs, which SVG can draw", () => {
  const context = new SvgContext()
  context.beginPath()
  context.moveTo(15, 10)
  context.arc(10, 10, 5, 0, 2 * Math.PI)
  context.fill()
  assert.equal(context.svg.match(/A5 5/g).length, 2)
  assert.ok(context.svg.includes("A5 5 0 0 1 5 10"))
})

test("saved styles come back", () => {
  const context = new SvgContext()
  context.lineWidth = 3
  context.setLineDash([2, 1])
  context.save()
  context.lineWidth = 1
  context.setLineDash([])
  context.restore()
  context.beginPath()
  context.moveTo(0, 0)
  context.lineTo(1, 1)
  context.stroke()
  assert.ok(context.svg.includes('stroke-width="3"'))
  assert.ok(context.svg.includes('stroke-dasharray="2 1"'))
})

test("the drawing holds the picture of the input and the nodes of the ends", () => {
  const svg = drawing({
    pictures: [{x: 1, y: 2, width: 30, height: 40, href: "data:image/png;base64,AA"}],
    shapes: [{x: 5, y: 6, width: 8, height: 8, radius: 4, color: "rgb(1, 2, 3)"}],
  })
  assert.ok(svg.includes('<image x="1" y="2" width="30" height="40" href="data:image/png;base64,AA"'))
  assert.ok(svg.includes('<rect x="5" y="6" width="8" height="8" rx="4" fill="rgb(1, 2, 3)"/>'))
})
