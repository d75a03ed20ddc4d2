import assert from "node:assert/strict"
import {readFileSync} from "node:fs"
import {test} from "node:test"
import vm from "node:vm"

const events = []

/** Run the script of the page with two models of Bokeh's; return a function that formats ticks. */
function load() {
  class CustomJSTickFormatter {}
  class CustomJS {}
  const CustomEvent = class { constructor(name, {detail}) { Object.assign(this, {name, detail}) } }
  const script = readFileSync(new URL("../../viewer/static/charts/chart_functions.js", import.meta.url), "utf8")
  const dispatchEvent = (event) => events.push(event)
  vm.runInNewContext(script, {Bokeh: {Models: {CustomJS, CustomJSTickFormatter}}, CustomEvent, dispatchEvent})
  const format = (code, ticks, ...values) =>
    [...Object.assign(new CustomJSTickFormatter(), {code, values}).doFormat(ticks)]
  return {format, callback: new CustomJS()}
}

const {format, callback} = load()
const numbers = (ticks, isLog = false, range = {start: 0, end: 1}) => format("numbers", ticks, {y_range: range}, isLog)

test("adjacent ticks have different labels", () => {
  assert.deepEqual(numbers([0, 0.5, 1]), ["0", "0.5", "1"])
  assert.deepEqual(numbers([1.00001, 1.00002]), ["1.00001", "1.00002"])
  assert.deepEqual(numbers([20000, 1e-5]), ["2e+4", "1e−5"])
  assert.deepEqual(numbers([7]), ["7"])
})

test("crowded ticks of a logarithmic axis have no text", () => {
  const ticks = [1, 2, 3, 4, 5, 6, 7, 8, 9, 10]
  assert.deepEqual(numbers(ticks, true, {start: 1, end: 1000}), ["1", "", "3", "", "", "", "7", "", "", ""])
  assert.equal(numbers(ticks, false, {start: 1, end: 1000}).includes(""), false)
})

test("seconds are durations", () => {
  assert.deepEqual(format("durations", [0, 40, 60, 90, 3600, 5400, -61]), ["0", "40 s", "1 min", "1:30 min", "1 h", "1:30 h", "−1:01 min"])
})

test("an event of a chart is reported with its name", () => {
  callback.execute({origin: {name: "loss"}, event_name: "doubletap"})
  assert.deepEqual({...events[0].detail}, {name: "loss", event: "doubletap"})
})
