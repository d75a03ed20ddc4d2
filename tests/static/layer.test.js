import assert from "node:assert/strict"
import test from "node:test"

import {colormap} from "../../viewer/static/layer/colormaps.js"
import {frameCrop} from "../../viewer/static/layer/crop_frame.js"
import {filterTable} from "../../viewer/static/layer/filter_table.js"
import {escapeXml, px, svgElement} from "../../viewer/static/shared/svg_text.js"
import {clamp, easeOut} from "../../viewer/static/shared/math.js"

test("a colormap has 256 colors from its first stop to its last; an unknown one is gray", () => {
  const gray = colormap("gray")
  assert.equal(gray.length, 3 * 256)
  assert.deepEqual([...gray.slice(0, 3)], [14, 17, 23])
  assert.deepEqual([...gray.slice(-3)], [246, 247, 250])
  assert.equal(colormap("plaid"), gray)
  assert.notDeepEqual(colormap("diverging"), gray)
})

test("a crop at the border of the image lies at the inner side of its receptive field", () => {
  assert.deepEqual(frameCrop([0, 4, 6, 12], [8, 8]), {size: [6, 8], frame: [8, 8], offset: [2, 0]})
  assert.deepEqual(frameCrop([20, 0, 28, 5], [8, 8]), {size: [8, 5], frame: [8, 8], offset: [0, 3]})
  assert.deepEqual(frameCrop([24, 24, 30, 32], [8, 8]), {size: [6, 8], frame: [8, 8], offset: [0, 0]})
})

test("without a known receptive field, the crop is the frame", () => {
  assert.deepEqual(frameCrop([0, 0, 32, 16], [0, 0]), {size: [32, 16], frame: [32, 16], offset: [0, 0]})
})

test("a table has one row per filter and a final line break", () => {
  const row = {index: 3, id: 7, x: 0.5, y: -0.25, degenerate: "dead", gradient: 0, activation: 1.5}
  assert.equal(filterTable([row]), "filter,id,x,y,degenerate,mean_abs_gradient,activation\n3,7,0.5,-0.25,dead,0,1.5\n")
  assert.equal(filterTable([]).split("\n").length, 2)
})

test("SVG is escaped", () => {
  assert.equal(escapeXml('<a & "b">'), "&lt;a &amp; &quot;b&quot;&gt;")
  assert.equal(svgElement("text", {x: 1, class: 'a"b'}, escapeXml("1 < 2")), '<text x="1" class="a&quot;b">1 &lt; 2</text>')
  assert.equal(svgElement("rect", {width: 2}), '<rect width="2"/>')
  assert.equal(px(1.23456), "1.23")
})

test("values are clamped and movements eased", () => {
  assert.deepEqual([clamp(-1, 0, 2), clamp(1, 0, 2), clamp(3, 0, 2)], [0, 1, 2])
  assert.equal(easeOut(0), 0)
  assert.equal(easeOut(1), 1)
  assert.ok(easeOut(0.5) > 0.5)
})
