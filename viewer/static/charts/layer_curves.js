/** The curves of the charts by layer: sent as one array, drawn by Bokeh from one row per curve. */

import {modelNamed} from "../shared/bokeh_document.js"
import {subscribe} from "../shared/link.js"

/** @import {LayerCurvesData} from "../shared/parts.js" */

/**
 * @param {string} name of the chart
 * @param {LayerCurvesData} curves
 */
function showCurves(name, {step, value, color, layer, width}) {
  const source = modelNamed(`${name}_curves`)
  if (source == null || step == null || value == null) return
  const length = step.length
  const flat = new Float32Array(value) // a plain one: its rows are views of it
  const rows = layer.map((_, i) => flat.subarray(i * length, (i + 1) * length))
  source.data = {step: rows.map(() => step), value: rows, color, layer, width}
}

/** Call this once Bokeh's models exist. */
export function startLayerCurves() {
  subscribe("curves-layers_0", (curves) => showCurves("layers_0", curves))
  subscribe("curves-layers_1", (curves) => showCurves("layers_1", curves))
}
