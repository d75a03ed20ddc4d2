import assert from "node:assert/strict"
import test from "node:test"

import {jitterInPlace, jitterReach, jitterX, jitterY} from "../../viewer/static/network/jitter.js"

/** Return the places of nodes at (0, 0), after the jitter at one moment. */
function jittered(nodes, now = 1234) {
  const places = {x: new Float32Array(nodes.phase.length), y: new Float32Array(nodes.phase.length)}
  jitterInPlace(places, nodes, now)
  return places
}

test("a node jitters in proportion to its gradient, and a dead node not at all", () => {
  const nodes = {phase: [0.3, 0.3, 0.3], amplitude: [0, 0.5, 1], size: [16, 16, 16], bar: [0, 0, 0], motion: 1}
  const {x, y} = jittered(nodes)
  assert.equal(x[0], 0)
  assert.equal(y[0], 0)
  assert.ok(Math.abs(x[2] - 2 * x[1]) < 1e-5 && Math.abs(y[2] - 2 * y[1]) < 1e-5)
  assert.notEqual(x[2], 0)
})

test("bars jitterInPlace sideways only", () => {
  const {x, y} = jittered({phase: [1], amplitude: [1], size: [60], bar: [10], motion: 1})
  assert.notEqual(x[0], 0)
  assert.equal(y[0], 0)
})

test("no node jitters when motion is off", () => {
  const {x, y} = jittered({phase: [1], amplitude: [1], size: [8], bar: [0], motion: 0})
  assert.deepEqual([x[0], y[0]], [0, 0])
})

test("a node stays within its reach, and its phase sets it apart from others", () => {
  for (let seconds = 0; seconds < 3; seconds += 0.01) {
    assert.ok(Math.abs(jitterX(seconds, 2)) <= 1.6 && Math.abs(jitterY(seconds, 2)) <= 1.6)
  }
  assert.notEqual(jitterX(1, 0), jitterX(1, 1))
  assert.equal(jitterReach(1, 1, 100, 50), 0.62 * 6) // wide bars have a limit
})
