import assert from "node:assert/strict"
import test from "node:test"

import {signalPoints} from "../../viewer/static/network/signal.js"

test("a signal fills its row from left to right, with positive values above the middle", () => {
  const signal = [0, 1, -1, 0.5, 0.5, 0.5]
  const first = signalPoints(signal, 0, 3, 100, 20)
  assert.deepEqual(first.map(([x]) => x), [0, 50, 100])
  assert.equal(first[0][1], 10)
  assert.ok(first[1][1] < 10 && first[1][1] >= 0)
  assert.ok(first[2][1] > 10 && first[2][1] <= 20)
  for (const [, y] of signalPoints(signal, 1, 3, 100, 20)) assert.ok(y > 20 && y < 30)
})

test("a single value stands in the middle", () => {
  assert.deepEqual(signalPoints([0], 0, 1, 100, 20), [[50, 10]])
})
