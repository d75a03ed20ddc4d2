import assert from "node:assert/strict"
import test from "node:test"

import {boxBetween, filterRange, filtersInBox} from "../../viewer/static/network/node_box.js"

const IDENTITY = {left: 0, top: 0, scaleX: 1, scaleY: 1}
// Two dots of layer 0 at x = 10, and three bars of layer 1 at x = 50, which stand for four filters each.
const NODES = {x: [10, 10, 50, 50, 50], y: [10, 20, 10, 20, 30], layer: [0, 0, 1, 1, 1], first: [0, 1, 0, 4, 8], last: [0, 1, 3, 7, 11]}

test("a box is the same from whichever corner it is drawn", () => {
  const box = {left: 1, top: 2, right: 5, bottom: 9}
  for (const [a, b] of [[[1, 2], [5, 9]], [[5, 9], [1, 2]], [[1, 9], [5, 2]]]) assert.deepEqual(boxBetween(a, b), box)
})

test("a box selects the filters of the nodes in it", () => {
  assert.deepEqual(filtersInBox(NODES, IDENTITY, boxBetween([0, 0], [20, 15])), {layer: 0, nodes: [0], filters: [0]})
  assert.deepEqual(filtersInBox(NODES, IDENTITY, boxBetween([40, 15], [60, 99])).filters, [4, 5, 6, 7, 8, 9, 10, 11])
  assert.equal(filtersInBox(NODES, IDENTITY, boxBetween([20, 0], [40, 99])), null)
})

test("of several layers in a box, the one with most nodes is selected, else the first", () => {
  assert.equal(filtersInBox(NODES, IDENTITY, boxBetween([0, 0], [99, 99])).layer, 1)
  assert.equal(filtersInBox(NODES, IDENTITY, boxBetween([0, 0], [99, 25])).layer, 0)
})

test("a box selects what is in it as the network is seen, zoomed in", () => {
  const zoomed = {left: 5, top: 5, scaleX: 4, scaleY: 4}
  assert.deepEqual(filtersInBox(NODES, zoomed, boxBetween([15, 15], [25, 25])).nodes, [0])
  assert.equal(filtersInBox(NODES, zoomed, boxBetween([0, 0], [15, 15])), null)
})

test("a node stands for a range of filters", () => {
  assert.deepEqual(filterRange(3, 3), [3])
  assert.deepEqual(filterRange(4, 6), [4, 5, 6])
})
