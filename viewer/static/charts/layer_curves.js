/** The curves of the charts by layer: sent as one array, drawn by Bokeh from one row per curve. */

import {modelNamed} from "../shared/bokeh_document.js"
import {subscribe} from "../shared/link.js"
import {curveColumns} from "./curve_columns.js"

/** @import {LayerCurvesData} from "../shared/parts.js" */

/**
 * @param {string} name of the chart
 * @param {LayerCurvesData} curves
 */
function showCurves(name, curves) {
  const source = modelNamed(`${name}_curves`)
  if (source == null || curves.step == null || curves.value == null) return
  source.data = curveColumns(curves)
}

/** Call this once Bokeh's models exist. */
export function startLayerCurves() {
  subscribe("curves-layers_0", (curves) => showCurves("layers_0", curves))
  subscribe("curves-layers_1", (curves) => showCurves("layers_1", curves))
}
