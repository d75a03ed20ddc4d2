import assert from "node:assert/strict"
import test from "node:test"

import {boxRegion, hitThumbnail, keepInside, lassoRegion, nearestNeighbors, neighborInDirection} from "../../viewer/static/layer/geometry.js"

test("a hit is the nearest thumbnail whose square holds the point", () => {
  const centers = [[10, 10], [14, 10], [NaN, NaN], [50, 50]]
  assert.equal(hitThumbnail(centers, [13, 11], 5), 1)
  assert.equal(hitThumbnail(centers, [9, 14], 5), 0)
  assert.equal(hitThumbnail(centers, [30, 30], 5), -1)
  assert.equal(hitThumbnail(centers, [55, 45], 5), 3)
  assert.equal(hitThumbnail([], [0, 0], 5), -1)
})

test("a box holds its edges, whichever corner it begins at", () => {
  for (const contains of [boxRegion([0, 0], [10, 20]), boxRegion([10, 20], [0, 0]), boxRegion([10, 0], [0, 20])]) {
    assert.equal(contains([5, 5]), true)
    assert.equal(contains([10, 20]), true)
    assert.equal(contains([11, 5]), false)
    assert.equal(contains([5, -1]), false)
  }
})

test("a lasso holds what is inside its path, not what is in its notch", () => {
  const contains = lassoRegion([[0, 0], [20, 0], [20, 20], [10, 5], [0, 20]])
  assert.equal(contains([10, 2]), true)
  assert.equal(contains([2, 15]), true)
  assert.equal(contains([10, 15]), false)
  assert.equal(contains([30, 2]), false)
  assert.equal(lassoRegion([])([0, 0]), false)
})

test("neighbors are the nearest candidates, and their weights sum to 1", () => {
  const centers = [[0, 0], [1, 0], [2, 0], [3, 0], [NaN, 0]]
  const found = nearestNeighbors(centers, [0, 0], 2, (i) => i !== 0)
  assert.deepEqual(found.map(({index}) => index), [1, 2])
  assert.ok(found[0].weight > found[1].weight)
  assert.ok(Math.abs(found[0].weight + found[1].weight - 1) < 1e-12)
  assert.equal(nearestNeighbors(centers, [0, 0], 9, () => true).length, 4)
  assert.deepEqual(nearestNeighbors(centers, [0, 0], 2, () => false), [])
})

test("an enlarged thumbnail is kept inside, unless its center is out of view", () => {
  assert.deepEqual(keepInside([2, 50], 17, [100, 100]), [10, 50])
  assert.deepEqual(keepInside([50, 99], 17, [100, 100]), [50, 90])
  assert.deepEqual(keepInside([-1, 50], 17, [100, 100]), [-1, 50])
})

test("an arrow key finds the nearest thumbnail ahead, not one off to the side", () => {
  const centers = [[0, 0], [10, 0], [20, 0], [9, 30], [0, 10], [-5, -5]]
  assert.equal(neighborInDirection(centers, 0, [1, 0]), 1)
  assert.equal(neighborInDirection(centers, 1, [1, 0]), 2)
  assert.equal(neighborInDirection(centers, 2, [1, 0]), -1)
  assert.equal(neighborInDirection(centers, 0, [0, 1]), 4)
  assert.equal(neighborInDirection(centers, 4, [0, -1]), 0)
  assert.equal(neighborInDirection([[0, 0], [NaN, NaN]], 0, [1, 0]), -1)
})
