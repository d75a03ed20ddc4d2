/* Pictures of filters and maps: an atlas of levels from the server, painted in the page's colours. */
(function () {
  "use strict"
  const page = window.revacnn

  /* Stops of the ramps, level 0 to 255. In both themes pictures are seen on their own ground. */
  const RAMPS = {
    grey: [[14, 17, 23], [126, 128, 132], [246, 247, 250]],
    warm: [[32, 22, 56], [120, 84, 110], [134, 132, 136], [226, 150, 70], [255, 236, 196]],
    blue: [[6, 12, 24], [20, 58, 110], [52, 130, 210], [150, 208, 255], [244, 250, 255]],
    diverging: [[64, 160, 255], [24, 62, 116], [10, 14, 24], [140, 74, 14], [255, 176, 66]],
  }
  const tables = {}
  for (const [name, stops] of Object.entries(RAMPS)) {
    const table = tables[name] = new Uint8ClampedArray(3 * 256)
    for (let level = 0; level < 256; level++) {
      const at = level / 255 * (stops.length - 1), low = Math.min(stops.length - 2, Math.floor(at)), part = at - low
      for (let c = 0; c < 3; c++) table[3 * level + c] = stops[low][c] * (1 - part) + stops[low + 1][c] * part
    }
  }

  /** All tiles of an atlas side by side on one canvas. */
  function paint_atlas(atlas, colouring) {
    const [n, h, w] = atlas?.shape ?? [0]
    if (!n) return null
    const across = Math.ceil(Math.sqrt(n)), canvas = document.createElement("canvas")
    canvas.width = across * w
    canvas.height = Math.ceil(n / across) * h
    const ctx = canvas.getContext("2d"), picture = ctx.createImageData(canvas.width, canvas.height)
    const out = picture.data, rgb = atlas.shape.length == 4, table = tables[colouring] ?? tables.grey
    let from = 0
    for (let i = 0; i < n; i++) {
      const x0 = i % across * w, y0 = Math.floor(i / across) * h
      for (let y = 0; y < h; y++) {
        let to = 4 * ((y0 + y) * canvas.width + x0)
        for (let x = 0; x < w; x++, to += 4) {
          if (rgb) for (let c = 0; c < 3; c++) out[to + c] = atlas[from++]
          else {
            const level = 3 * atlas[from++]
            for (let c = 0; c < 3; c++) out[to + c] = table[level + c]
          }
          out[to + 3] = 255
        }
      }
    }
    ctx.putImageData(picture, 0, 0)
    return {canvas, across, w, h, n}
  }

  page.paint_atlas = paint_atlas
})()
