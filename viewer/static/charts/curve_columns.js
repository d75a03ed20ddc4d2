/** The columns that Bokeh draws the layers' curves from. */

/** @import {LayerCurvesData} from "../shared/parts.js" */

/**
 * One row per curve: those of the shown run as solid lines, then those of the other run as dashed ones.
 * @param {LayerCurvesData} curves
 * @returns {Record<string, ArrayLike<unknown>>}
 */
export function curveColumns({compared, ...own}) {
  const groups = compared == null ? [own] : [own, compared]
  const dash = ["solid", "dashed"].slice(0, groups.length)
  return {
    step: groups.flatMap(({layer, step}) => layer.map(() => step)),
    value: groups.flatMap(rows),
    color: groups.flatMap(({color}) => color),
    layer: groups.flatMap(({layer}) => layer),
    width: groups.flatMap(({width}) => width),
    dash: groups.flatMap(({layer}, i) => layer.map(() => dash[i])),
  }
}

/** @param {LayerCurvesData} curves */
function rows({step, value, layer}) {
  const length = step?.length ?? 0
  const flat = new Float32Array(value ?? []) // a plain one: its rows are views of it
  return layer.map((_, i) => flat.subarray(i * length, (i + 1) * length))
}
