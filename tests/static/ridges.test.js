import assert from "node:assert/strict"
import test from "node:test"

import {formatPercent} from "../../viewer/static/layer/prediction.js"
import {baselineY, ridgeOutline, ridgeLayout, rowAt} from "../../viewer/static/layer/ridges.js"

for (const rows of [1, 2, 10, 64]) {
  test(`${rows} ridges of full height lie within the drawing, the newest at its bottom`, () => {
    const layout = ridgeLayout(300, 200, rows)
    assert.ok(layout.height > 5)
    for (let row = 0; row < rows; row++) {
      const base = baselineY(layout, row, rows)
      assert.ok(base - layout.height >= 0 && base <= 200)
    }
    assert.equal(baselineY(layout, rows - 1, rows), layout.bottom)
  })
}

test("the pointer finds the ridge whose baselineY it is above", () => {
  const layout = ridgeLayout(300, 200, 10)
  for (let row = 0; row < 10; row++) assert.equal(rowAt(layout, baselineY(layout, row, 10) - 1, 10), row)
  assert.equal(rowAt(layout, 0, 10), 0)
  assert.equal(rowAt(layout, 500, 10), 9)
  assert.equal(rowAt(layout, 10, 0), -1)
})

test("an ridgeOutline is as high as the share, and cut off at the peak", () => {
  const layout = {width: 100, top: 50, bottom: 100, height: 50}
  assert.deepEqual(ridgeOutline(layout, [0, 0.1, 0.4], 0.2, 100).map(([, y]) => y), [100, 75, 50])
  assert.deepEqual(ridgeOutline(layout, [0, 0], 0.2, 100).map(([x]) => x), [25, 75])
})

test("probabilities have a decimal where whole percents would say too little", () => {
  assert.equal(formatPercent(0.62), "62\u202f%")
  assert.equal(formatPercent(0.9995), "100.0\u202f%")
  assert.equal(formatPercent(0.034), "3.4\u202f%")
})
