import assert from "node:assert/strict"
import test from "node:test"

import {curveColumns} from "../../viewer/static/charts/curve_columns.js"
import {fileName} from "../../viewer/static/shared/file_name.js"

const curves = (names, steps, values) => ({
  step: Float64Array.from(steps), value: Float32Array.from(values), color: names.map(() => "blue"), layer: names,
  width: names.map(() => 1),
})

test("each curve is a row of the one array that is sent", () => {
  const columns = curveColumns(curves(["conv1", "conv2"], [1, 2], [10, 11, 20, 21]))
  assert.deepEqual(columns.layer, ["conv1", "conv2"])
  assert.deepEqual(columns.value.map((row) => [...row]), [[10, 11], [20, 21]])
  assert.deepEqual(columns.step.map((row) => [...row]), [[1, 2], [1, 2]])
  assert.deepEqual(columns.dash, ["solid", "solid"])
})

test("curves of another run are dashed and have steps of their own", () => {
  const compared = curves(["conv1"], [5, 6, 7], [1, 2, 3])
  const columns = curveColumns({...curves(["conv1", "conv2"], [1, 2], [10, 11, 20, 21]), compared})
  assert.deepEqual(columns.layer, ["conv1", "conv2", "conv1"])
  assert.deepEqual([...columns.step[2]], [5, 6, 7])
  assert.deepEqual([...columns.value[2]], [1, 2, 3])
  assert.deepEqual(columns.dash, ["solid", "solid", "dashed"])
  for (const column of Object.values(columns)) assert.equal(column.length, 3)
})

test("no curve is no row", () => {
  assert.equal(curveColumns({color: [], layer: [], width: []}).value.length, 0)
})

test("a file name has no character that a file system may refuse", () => {
  assert.equal(fileName(["My/Net: 2", "loss"], "png"), "My_Net_2-loss.png")
  assert.equal(fileName(["", "network"], "svg"), "network.svg")
})
