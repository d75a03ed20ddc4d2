/* The curves of the charts by layer: sent as one array, drawn by Bokeh from one column per curve. */
(function () {
  "use strict"
  const page = window.revacnn

  function draw(name, {step, value, color, layer, width}) {
    const source = Bokeh.documents[0]?.get_model_by_name(`${name}_curves`)
    if (source == null || value == null) return
    const n = step.length, flat = new Float32Array(value) // a plain one: its parts are views of it
    const rows = layer.map((_, i) => flat.subarray(i * n, (i + 1) * n))
    const data = {step: rows.map(() => step), value: rows, color, layer, width}
    source.setv({data}, {sync: false})
  }

  for (const name of ["layers_0", "layers_1"]) {
    page.drawers[`curves-${name}`] = (data) => draw(name, data)
  }
})()
