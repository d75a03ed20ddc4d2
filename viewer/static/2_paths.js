/* Draws the paths between the layers, in a worker where there is one (see 1_workers.js). The functions here know nothing
 * but what they are told:
 *
 *   width, height (px), ratio (device pixels per px), box     [x, y, width, height] of the plot
 *   x, y, x1, y1                  where each path begins and ends
 *   zoom, middle, scale           how far the plot is zoomed in, its middle from above (px), factor of all widths
 *   weight, mark                  of each path: 0 to 1; 1 of the chosen node, 2 staged
 *   light                         whether the page is */
(function () {
  "use strict"
  const page = window.revacnn
  const WIDTHS = 10 // as many strokes as there are widths, not as there are paths
  const MARKS = {light: [null, "#0c4a6e", "#c81e43"], dark: [null, "#e0f2fe", "#f43f5e"]}

  /** A long path bends towards the middle of the network, past the columns between its ends. */
  function curve(ctx, q, i) {
    const a = q.x[i], b = q.y[i], c = q.x1[i], d = q.y1[i]
    ctx.moveTo(a, b)
    if (c - a < 110 * q.zoom) {
      const h = (c - a) * 0.5
      ctx.bezierCurveTo(a + h, b, c - h, d, c, d)
      return
    }
    const m = (a + c) / 2, waist = q.middle + ((b + d) / 2 - q.middle) * 0.84, h = (c - a) * 0.24
    ctx.bezierCurveTo(a + h, b, m - h, waist, m, waist)
    ctx.bezierCurveTo(m + h, waist, c - h, d, c, d)
  }

  /** Those without a mark, the thinnest first. The marked ones are left over. */
  function paint_by_weight(ctx, q) {
    const buckets = Array.from({length: WIDTHS}, () => []), marked = []
    for (let i = 0; i < q.weight.length; i++) {
      if (q.mark[i] > 0) marked.push(i)
      else buckets[Math.min(WIDTHS - 1, q.weight[i] * WIDTHS | 0)].push(i)
    }
    const dim = marked.length > 0 ? 0.55 : 1
    const light_touch = Math.min(1, Math.max(0.42, Math.sqrt(900 / q.weight.length)))
    buckets.forEach((bucket, k) => {
      const u = (k + 0.5) / WIDTHS
      ctx.lineWidth = (0.4 + 3.4 * u * u) * q.scale
      ctx.globalAlpha = (0.18 + 0.52 * u) * dim * light_touch
      ctx.strokeStyle = q.light
        ? `hsl(${212 - 8 * u},${50 + 30 * u}%,${60 - 26 * u}%)`
        : `hsl(${214 - 12 * u},${60 + 35 * u}%,${50 + 20 * u}%)`
      for (let from = 0; from < bucket.length; from += 24) { // long paths are slow to stroke
        ctx.beginPath()
        for (const i of bucket.slice(from, from + 24)) curve(ctx, q, i)
        ctx.stroke()
      }
    })
    ctx.globalAlpha = 1
    return marked
  }

  function draw_paths(ctx, q) {
    ctx.save()
    ctx.beginPath()
    ctx.rect(...q.box)
    ctx.clip()
    for (const i of paint_by_weight(ctx, q)) {
      ctx.lineWidth = (1 + 3.4 * q.weight[i]) * q.scale
      ctx.strokeStyle = MARKS[q.light ? "light" : "dark"][q.mark[i]]
      ctx.beginPath()
      curve(ctx, q, i)
      ctx.stroke()
    }
    ctx.restore()
    return false // they stand still
  }

  page.Paths = class extends page.Drawing {
    constructor(canvas) {
      super(canvas, draw_paths, [curve, paint_by_weight], {WIDTHS, MARKS})
    }
  }
})()
