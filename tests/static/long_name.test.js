import assert from "node:assert/strict"
import test from "node:test"

import {splitName, shortenMiddle} from "../../viewer/static/shared/long_name.js"

test("the end of a long name was cut off, by which layers differ", () => {
  assert.deepEqual(splitName("features.denseblock3.denselayer20.conv2"), ["features.denseblock3.denselayer20.", "conv2"])
  assert.deepEqual(splitName("features.conv3"), ["features.", "conv3"])
})

test("a name was cut in the middle of a part", () => {
  assert.deepEqual(splitName("backbone.layer4.2.conv3"), ["backbone.layer4.", "2.conv3"])
  assert.deepEqual(splitName("a_convolution_without_parts"), ["a_convolution_w", "ithout_parts"])
})

test("a short name is never cut", () => {
  assert.deepEqual(splitName("conv1"), ["", "conv1"])
})

test("both parts together are the name", () => {
  for (const name of ["", "0", "conv1", "layer1.0.conv2"]) assert.equal(splitName(name).join(""), name)
})

test("names of classes were cut where they differ", () => {
  const fits = (/** @type {number} */ most) => (/** @type {string} */ text) => text.length <= most
  assert.equal(shortenMiddle("golden retriever", fits(8)), "gold…ver")
  assert.equal(shortenMiddle("pickup truck", fits(9)), "pick…ruck")
  assert.equal(shortenMiddle("frog", fits(4)), "frog")
  assert.equal(shortenMiddle("frog", fits(1)), "f…g") // no less: all of it is said on hover
})
