import assert from "node:assert/strict"
import test from "node:test"

import {barLengths, COLUMNS, describeShape, describeTotals, layerCsv, NETWORK_ORDER, nextSorting, sortedOrder} from "../../viewer/static/table/layer_rows.js"
import {targetRow} from "../../viewer/static/table/row_keys.js"

const row = (changes) => ({
  name: "conv1", type: "Conv2d", inputs: 3, filters: 8, kernel: [3, 3], stride: [1, 1], groups: 1,
  output: [28, 28], parameters: 224, macs: 169344, frozen: 0, ...changes,
})
const ROWS = [row({}), row({name: "conv10", filters: 4, macs: 0, output: null}), row({name: "conv2", filters: 16, parameters: 1168})]
const STATISTICS = {
  gradient: Float32Array.of(0.5, NaN, 2), activation: Float32Array.of(3, 2, 1),
  update_ratio: Float32Array.of(1e-3, 1e-3, 1e-3), dead: Int32Array.of(0, 4, 4),
}
const column = (key) => COLUMNS.find((one) => one.key === key)
const order = (key, descending) => sortedOrder(ROWS, STATISTICS, {key, descending})

test("names are sorted with their numbers, and the order of the network is kept without a column", () => {
  assert.deepEqual(order("name", false), [0, 2, 1])
  assert.deepEqual(order("name", true), [1, 2, 0])
  assert.deepEqual(sortedOrder(ROWS, STATISTICS, NETWORK_ORDER), [0, 1, 2])
})

test("numbers are sorted by value, dead filters by their share, and what is unknown comes last in both directions", () => {
  assert.deepEqual(order("shape", true), [2, 0, 1])
  assert.deepEqual(order("gradient", true), [2, 0, 1])
  assert.deepEqual(order("gradient", false), [0, 2, 1])
  assert.deepEqual(order("macs", false), [0, 2, 1])
  assert.deepEqual(order("dead", true), [1, 2, 0])
  assert.deepEqual(order("update_ratio", true), [0, 1, 2])
})

test("before any statistic has arrived, all rows are shown without one", () => {
  assert.deepEqual(sortedOrder(ROWS, {}, {key: "gradient", descending: true}), [0, 1, 2])
  for (const one of COLUMNS) for (const [i, each] of ROWS.entries()) assert.equal(typeof one.text(each, {}, i), "string")
  assert.equal(column("dead").text(ROWS[0], {}, 0), "–")
})

test("clicks on a title sort as is usual, in reverse, and as in the network", () => {
  const first = nextSorting(NETWORK_ORDER, column("macs"))
  assert.deepEqual(first, {key: "macs", descending: true})
  const second = nextSorting(first, column("macs"))
  assert.deepEqual(second, {key: "macs", descending: false})
  assert.deepEqual(nextSorting(second, column("macs")), NETWORK_ORDER)
  assert.deepEqual(nextSorting(second, column("name")), {key: "name", descending: false})
})

test("a shape names stride and groups where there are some", () => {
  assert.equal(describeShape(ROWS[0]), "3→8 · 3×3")
  assert.equal(describeShape(row({kernel: [7, 7], stride: [2, 2], groups: 32})), "3→8 · 7×7 /2 · 32 groups")
  assert.equal(describeShape(row({stride: [2, 1]})), "3→8 · 3×3 /2×1")
  assert.equal(describeShape(row({kernel: [5], stride: [2]})), "3→8 · 5 /2")
  assert.equal(describeShape(row({kernel: [], stride: []})), "3→8")
})

test("an output has as many dimensions as the layer", () => {
  const text = (output) => column("output").text(row({output}), {}, 0)
  assert.deepEqual([[28, 28], [100], [4, 8, 8], [], null].map(text), ["8×28×28", "8×100", "8×4×8×8", "8", "–"])
  assert.equal(column("output").value(row({output: []}), {}, 0), 8)
})

test("bars are as long as the share of the largest value, those of statistics on a logarithmic scale", () => {
  assert.deepEqual(barLengths(column("parameters"), ROWS, STATISTICS), [224 / 1168, 224 / 1168, 1])
  assert.deepEqual(barLengths(column("gradient"), ROWS, STATISTICS), [0, 0, 1])
  assert.deepEqual(barLengths(column("update_ratio"), ROWS, STATISTICS), [1, 1, 1])
})

test("a table in CSV has one row per layer; unknown values are empty, and names are quoted where needed", () => {
  const lines = layerCsv([row({name: 'a,"b"'}), ROWS[1]], STATISTICS).split("\n")
  assert.equal(lines.length, 4)
  assert.match(lines[0], /^layer,type,in_channels,out_channels,kernel,.*,parameters,macs,mean_abs_gradient,/)
  assert.equal(lines[1], '"a,""b""",Conv2d,3,8,3x3,1x1,1,28x28,224,169344,0.5,3,0.0010000000474974513,0,0')
  assert.equal(lines[2], "conv10,Conv2d,3,4,3x3,1x1,1,,224,,,2,0.0010000000474974513,4,0")
})

test("the totals are those of all layers", () => {
  assert.equal(describeTotals(ROWS), "3 layers · 28 filters · 1\u202f616 parameters · 339\u202fk multiply-accumulates")
})

test("arrow keys move between rows and stop at the ends", () => {
  assert.equal(targetRow("ArrowDown", 1, 3), 2)
  assert.equal(targetRow("ArrowDown", 2, 3), 2)
  assert.equal(targetRow("PageUp", 2, 3), 0)
  assert.equal(targetRow("End", 0, 3), 2)
  assert.equal(targetRow("x", 0, 3), null)
})
