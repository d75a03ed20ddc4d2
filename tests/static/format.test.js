import assert from "node:assert/strict"
import test from "node:test"

import {asSentence, formatNumber, joinFacts, parseRate} from "../../viewer/static/shared/format.js"

test("numbers have three significant digits, with an exponent where they are small or large", () => {
  assert.equal(formatNumber(0), "0")
  assert.equal(formatNumber(0.0123456), "0.0123")
  assert.equal(formatNumber(-12.3456), "-12.3")
  assert.equal(formatNumber(0.00123456), "1.23e-3")
  assert.equal(formatNumber(123456), "1.23e+5")
})

test("what is no number is a dash", () => {
  for (const value of [null, undefined, NaN, Infinity, -Infinity]) assert.equal(formatNumber(value), "–")
})

test("facts are joined without empty ones", () => {
  assert.equal(joinFacts(["conv1", "", null, false, undefined, "batch 3"]), "conv1 · batch 3")
})

test("a sentence ends with one mark", () => {
  assert.equal(asSentence("no gradient"), "No gradient.")
  assert.equal(asSentence("really?"), "Really?")
  assert.equal(asSentence(""), "")
})

test("rates are finite numbers from zero on, with a point or a comma", () => {
  assert.equal(parseRate(" 0.01 "), 0.01)
  assert.equal(parseRate("1e-3"), 1e-3)
  assert.equal(parseRate("0,5"), 0.5)
  assert.equal(parseRate("0"), 0)
  for (const text of ["", "  ", "-1", "fast", "Infinity", "NaN", "1,000,000"]) assert.equal(parseRate(text), null)
})
