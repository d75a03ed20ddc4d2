import assert from "node:assert/strict"
import test from "node:test"

import {decodeFrame} from "../../viewer/static/shared/frame.js"

const ALIGNMENT = 8

/** Encode a frame as viewer/rendering/frame_codec.py does. */
function encodeFrame(head, arrays) {
  let json = new TextEncoder().encode(JSON.stringify(head))
  const padding = (ALIGNMENT - (4 + json.length) % ALIGNMENT) % ALIGNMENT
  json = Uint8Array.from([...json, ...new Array(padding).fill(0x20)])
  const length = new Uint8Array(Uint32Array.of(json.length).buffer)
  const bytes = [...length, ...json]
  for (const array of arrays) {
    bytes.push(...new Uint8Array(array.buffer))
    while (bytes.length % ALIGNMENT !== 0) bytes.push(0)
  }
  return Uint8Array.from(bytes).buffer
}

test("words, numbers and arrays of all types arrive with their shapes", () => {
  const data = {
    text: "conv1 · ∇",
    floats: {$array: ["f4", 0, [2, 3]]},
    nested: [{bytes: {$array: ["u1", 24, [3]]}}],
    ints: {$array: ["i4", 32, [2]]},
    doubles: {$array: ["f8", 40, [1]]},
    missing: null,
  }
  const arrays = [Float32Array.of(1, 2, 3, 4, 5, 6), Uint8Array.of(7, 8, 9), Int32Array.of(-1, 2), Float64Array.of(0.1)]
  const frame = decodeFrame(encodeFrame({sent: 4, stamps: [1.5], parts: [{part: "x", data}]}, arrays))

  assert.equal(frame.sent, 4)
  assert.deepEqual(frame.stamps, [1.5])
  const [{part, data: decoded}] = frame.parts
  assert.equal(part, "x")
  assert.equal(decoded.text, "conv1 · ∇")
  assert.equal(decoded.missing, null)
  assert.ok(decoded.floats instanceof Float32Array)
  assert.deepEqual([...decoded.floats], [1, 2, 3, 4, 5, 6])
  assert.deepEqual(decoded.floats.shape, [2, 3])
  assert.deepEqual([...decoded.nested[0].bytes], [7, 8, 9])
  assert.deepEqual([...decoded.ints], [-1, 2])
  assert.deepEqual([...decoded.doubles], [0.1])
})

test("an empty array has its shape, too", () => {
  const frame = decodeFrame(encodeFrame({sent: 0, stamps: [], parts: [{part: "x", data: {$array: ["u1", 0, [0, 5, 5]]}}]}, []))
  assert.equal(frame.parts[0].data.length, 0)
  assert.deepEqual(frame.parts[0].data.shape, [0, 5, 5])
})
