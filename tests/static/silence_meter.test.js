import assert from "node:assert/strict"
import test from "node:test"

import {SilenceMeter} from "../../viewer/static/shared/silence_meter.js"

/** Return a meter that has received a message and was checked at 0. */
function started() {
  const meter = new SilenceMeter(2500)
  meter.reset()
  meter.check(0, true)
  return meter
}

test("a server that sends nothing for 2.5 s is silent", () => {
  const meter = started()
  for (let now = 250; now < 2500; now += 250) assert.equal(meter.check(now, true), false)
  assert.equal(meter.check(2500, true), true)
  meter.reset()
  assert.equal(meter.check(2750, true), false)
})

test("a browser that was busy or asleep for a minute does not take the server for silent", () => {
  const meter = started()
  assert.equal(meter.check(60_000, true), false)
  meter.reset() // what has arrived in the meantime is read after the check
  assert.equal(meter.check(60_250, true), false)
})

test("a hidden page measures nothing, and begins from zero when it is shown", () => {
  const meter = started()
  for (let now = 1000; now < 60_000; now += 1000) assert.equal(meter.check(now, false), false)
  assert.equal(meter.check(60_000, true), false)
})

test("nothing is known before the first message", () => {
  const meter = new SilenceMeter(2500)
  for (let now = 0; now < 60_000; now += 250) assert.equal(meter.check(now, true), false)
})
