import assert from "node:assert/strict"
import test from "node:test"

import {cellAt, LEVELS, colorLevel, matrixLayout, moveCell} from "../../viewer/static/layer/class_matrix.js"

test("a point in the middle of a cell finds this cell, and one beside the classes its row", () => {
  const layout = matrixLayout(500, 300, 16, 10)
  for (let row = 0; row < 16; row++) {
    for (let column = 0; column < 10; column++) {
      const x = layout.left + (column + 0.5) * layout.column, y = (row + 0.5) * layout.row
      assert.deepEqual(cellAt(layout, x, y, 16, 10), {row, column})
    }
  }
  assert.deepEqual(cellAt(layout, 2, 1, 16, 10), {row: 0, column: -1})
  assert.equal(cellAt(layout, 100, -1, 16, 10), null)
  assert.equal(cellAt(layout, 100, 1000, 16, 10), null)
})

test("few filters fill the room, many scroll, and nothing is wider than its room unless there are many classes", () => {
  assert.ok(matrixLayout(500, 300, 16, 10).height <= 300)
  assert.ok(matrixLayout(500, 300, 16, 10).width <= 500)
  assert.ok(matrixLayout(500, 300, 512, 10).height > 300)
  assert.ok(matrixLayout(500, 300, 16, 128).width > 500)
})

test("colors are symmetric around 0, and end at the limit", () => {
  assert.equal(colorLevel(0, 2), (LEVELS - 1) / 2)
  assert.equal(colorLevel(NaN, 2), (LEVELS - 1) / 2)
  assert.equal(colorLevel(9, 2), LEVELS - 1)
  assert.equal(colorLevel(-9, 2), 0)
  assert.equal(colorLevel(1, 2) + colorLevel(-1, 2), LEVELS - 1)
})

test("arrow keys stay within the matrix", () => {
  assert.deepEqual(moveCell({row: 0, column: 0}, "ArrowUp", 3, 2), {row: 0, column: 0})
  assert.deepEqual(moveCell({row: 1, column: 0}, "ArrowRight", 3, 2), {row: 1, column: 1})
  assert.deepEqual(moveCell({row: 2, column: 1}, "ArrowDown", 3, 2), {row: 2, column: 1})
})
