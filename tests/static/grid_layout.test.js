import assert from "node:assert/strict"
import test from "node:test"

import {gridShape, rankFilters} from "../../viewer/static/layer/grid_layout.js"

test("the grid fits the area", () => {
  for (const [count, width, height] of [[1, 300, 200], [64, 500, 400], [512, 500, 700], [7, 900, 40], [3, 10, 1000]]) {
    const {columns, cell} = gridShape(count, width, height)
    assert.ok(columns * cell <= width + 1e-9)
    assert.ok(columns >= count || Math.ceil(count / columns) * cell <= height + 1e-9, `${count} in ${width}×${height}`)
  }
  assert.equal(gridShape(0, 100, 100).columns, 1)
})

test("the largest value has rank 0, and equal values are in the order of their indices", () => {
  assert.deepEqual(rankFilters([4, 2, 9], [1, 5, 1]), [1, 0, 2])
})

test("without values, filters are ranked by index", () => {
  assert.deepEqual(rankFilters([4, 2, 9], null), [1, 0, 2])
  assert.deepEqual(rankFilters([], null), [])
})
